// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! A child process that does not outlive its test.

use std::io::Read;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::process::{kill_process, Pid, Signal};

use crate::{Result, LIMIT};

/// A running program and what it wrote to standard error.
#[derive(Debug)]
pub struct Process {
    child: Child,
    stderr: Arc<Mutex<String>>,
    reader: Option<JoinHandle<()>>,
}

impl Process {
    /// Starts a program, without input.
    pub fn start(command: &mut Command) -> Result<Self> {
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()?;
        let stderr = Arc::new(Mutex::new(String::new()));
        let mut pipe = child.stderr.take().expect("is piped");
        let text = Arc::clone(&stderr);
        let reader = std::thread::spawn(move || {
            let mut chunk = [0; 1024];
            while let Ok(n @ 1..) = pipe.read(&mut chunk) {
                text.lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .push_str(&String::from_utf8_lossy(&chunk[..n]));
            }
        });
        Ok(Self {
            child,
            stderr,
            reader: Some(reader),
        })
    }

    /// Standard error so far; after the program has ended, all of it.
    pub fn stderr(&self) -> String {
        self.stderr
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// True if the program has not ended.
    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        Ok(kill_process(Pid::from_child(&self.child), signal)?)
    }

    /// Waits until the program has ended by itself.
    pub fn wait(&mut self) -> Result<ExitStatus> {
        let end = Instant::now() + LIMIT;
        loop {
            if let Some(status) = self.child.try_wait()? {
                if let Some(reader) = self.reader.take() {
                    // Ends with the pipe; a panic in it would be a bug of this file.
                    let _ = reader.join();
                }
                return Ok(status);
            }
            if Instant::now() > end {
                return Err(crate::error::timeout("the program does not end"));
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Fails if the program has ended, which is just as well.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!(
                "--- standard error of process {}:\n{}",
                self.id(),
                self.stderr()
            );
        }
    }
}
