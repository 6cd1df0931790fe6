//! What queries take.

use super::QueryError;
use serde::de::{DeserializeOwned, Error as _};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Map, Value};

/// A query that takes nothing.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Nothing {}

/// An address: a string in hexadecimal, since JSON numbers end at 2⁵³.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Address(pub(super) u64);

impl Serialize for Address {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&format_args!("{:#x}", self.0))
    }
}

impl<'de> Deserialize<'de> for Address {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let digits = text.strip_prefix("0x").filter(|digits| digits.bytes().all(|byte| byte.is_ascii_hexdigit()));
        let number = digits.and_then(|digits| u64::from_str_radix(digits, 16).ok());
        number.map(Self).ok_or_else(|| D::Error::custom("an address is a string like \"0x7f0012345678\""))
    }
}

/// Reads parameters: every field that there is must be known and of its type.
pub(super) fn take<T: DeserializeOwned>(kind: &'static str, parameters: Map<String, Value>) -> Result<T, QueryError> {
    serde_json::from_value(Value::Object(parameters)).map_err(|error| wrong(kind, &error.to_string()))
}

/// What is wrong with parameters. Errors repeat what was sent; not all of it.
pub(super) fn wrong(kind: &'static str, problem: &str) -> QueryError {
    QueryError::Parameters { kind, problem: problem.chars().take(200).collect() }
}

/// A number that must lie within a range.
pub(super) fn within(
    kind: &'static str,
    name: &str,
    value: u64,
    range: std::ops::RangeInclusive<u64>,
) -> Result<u64, QueryError> {
    if range.contains(&value) {
        return Ok(value);
    }
    Err(wrong(kind, &format!("{name} is {} to {}, not {value}", range.start(), range.end())))
}

/// A result as JSON.
pub(super) fn json(result: &impl Serialize) -> Result<Value, QueryError> {
    serde_json::to_value(result).map_err(|error| QueryError::Unknown(format!("the answer cannot be written: {error}")))
}
