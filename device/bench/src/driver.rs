// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! The interface's driver: let go of the device and taken back. Some keep their buffers while the
//! interface is down, so only this shows what they take.

use std::{
    fs,
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use crate::{
    error::{Context, Error, Result},
    interface,
};

/// A device that has no driver until [`Unbound::bind`].
pub struct Unbound {
    interface: String,
    device: PathBuf,
    driver: PathBuf,
    id: String,
    addresses: Vec<String>,
}

fn resolved(path: PathBuf) -> Result<PathBuf> {
    fs::canonicalize(&path).context(path.display().to_string())
}

/// Addresses in the output of `ip -o -4 addr show`.
fn addresses(text: &str) -> Vec<String> {
    let address = |line: &str| {
        let mut words = line.split_whitespace().skip_while(|word| *word != "inet");
        words.nth(1).map(String::from)
    };
    text.lines().filter_map(address).collect()
}

impl Unbound {
    /// Takes the interface's device from its driver, and so the interface away.
    pub fn from(interface: &str) -> Result<Self> {
        let device = resolved(Path::new("/sys/class/net").join(interface).join("device"))?;
        let id = device
            .file_name()
            .and_then(|name| name.to_str())
            .ok_or_else(|| Error::Strange("device", device.display().to_string()))?
            .to_owned();
        let unbound = Self {
            driver: resolved(device.join("driver"))?,
            addresses: addresses(&interface::run(
                "ip",
                &["-o", "-4", "addr", "show", "dev", interface],
            )?),
            interface: interface.into(),
            device,
            id,
        };
        unbound.tell("unbind")?;
        Ok(unbound)
    }

    fn tell(&self, what: &str) -> Result<()> {
        let path = self.driver.join(what);
        fs::write(&path, &self.id).context(path.display().to_string())
    }

    /// Gives the device back: the interface has its name and addresses again, and is down.
    pub fn bind(self) -> Result<()> {
        self.tell("bind")?;
        let name = self.new_name()?;
        if name != self.interface {
            interface::run(
                "ip",
                &["link", "set", "dev", &name, "name", &self.interface],
            )?;
        }
        for address in &self.addresses {
            interface::run("ip", &["addr", "add", address, "dev", &self.interface])?;
        }
        Ok(())
    }

    fn new_name(&self) -> Result<String> {
        let folder = self.device.join("net");
        for _ in 0..100 {
            let names = fs::read_dir(&folder).ok().into_iter().flatten();
            let name = names.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
            if let Some(name) = name.into_iter().next() {
                return Ok(name);
            }
            thread::sleep(Duration::from_millis(50));
        }
        Err(Error::Strange(
            "driver",
            format!("{} made no interface", self.id),
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_an_interface() {
        let text = "3: igb    inet 10.99.4.2/24 scope global igb\\       valid_lft forever\n\
                    3: igb    inet 10.1.1.1/8 brd 10.255.255.255 scope global igb\n";
        assert_eq!(addresses(text), ["10.99.4.2/24", "10.1.1.1/8"]);
        assert!(addresses("").is_empty());
    }
}
