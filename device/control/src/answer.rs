// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! What the server says.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{Error, PROTOCOL};

/// The first line of the server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Greeting {
    /// Who it is.
    pub vnetd: Version,
}

/// Who the server is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Version {
    /// Version of the program.
    pub version: String,
    /// What it speaks: [`PROTOCOL`].
    pub protocol: u32,
}

impl Greeting {
    /// The greeting of a program of this version.
    pub fn new(version: &str) -> Self {
        Self {
            vnetd: Version {
                version: version.into(),
                protocol: PROTOCOL,
            },
        }
    }
}

/// The answer to a request.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Answer {
    /// What came of it.
    #[serde(rename = "return", default, skip_serializing_if = "Option::is_none")]
    pub value: Option<Value>,
    /// Or why nothing did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<Error>,
    /// That of the request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<u64>,
}

impl Answer {
    /// What came of a request.
    pub fn new(result: Result<Value, Error>, id: Option<u64>) -> Self {
        let (value, error) = match result {
            Ok(value) => (Some(value), None),
            Err(error) => (None, Some(error)),
        };
        Self { value, error, id }
    }

    /// The line to send, with its end.
    pub fn line(&self) -> Vec<u8> {
        line(self)
    }
}

impl Greeting {
    /// The line to send, with its end.
    pub fn line(&self) -> Vec<u8> {
        line(self)
    }
}

/// Values of these types always become JSON: their maps have strings for keys.
fn line(value: &impl Serialize) -> Vec<u8> {
    let mut line = serde_json::to_vec(value).unwrap_or_default();
    line.push(b'\n');
    line
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Class;
    use serde_json::json;

    #[test]
    fn lines_are_as_documented() {
        for (line, due) in [
            (
                Greeting::new("0.1.0").line(),
                r#"{"vnetd":{"version":"0.1.0","protocol":1}}"#,
            ),
            (
                Answer::new(Ok(json!({})), Some(7)).line(),
                r#"{"return":{},"id":7}"#,
            ),
            (
                Answer::new(Err(Error::new(Class::NoSuchCard, "no")), None).line(),
                r#"{"error":{"class":"no-such-card","desc":"no"}}"#,
            ),
        ] {
            assert_eq!(line, format!("{due}\n").into_bytes());
        }
    }

    #[test]
    fn a_class_of_the_future_is_no_reason_to_give_up() {
        let answer: Answer =
            serde_json::from_str(r#"{"error":{"class":"new","desc":"d"}}"#).unwrap();
        assert_eq!(answer.error.unwrap().class, Class::Unknown);
    }
}
