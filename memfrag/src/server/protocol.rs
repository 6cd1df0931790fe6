//! The messages of `docs/PROTOCOL.md`: what clients may say, read strictly, and what they are told.

use super::modelling::{Named, Shown};
use super::player::Command;
use super::tiles::{Level, Mode, ViewRequest};
use crate::report::model::Allocator;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// The protocol's version, as `hello` tells it.
pub const VERSION: u32 = 1;
/// Frames of the map in a second.
pub const MOST_HZ: f64 = 30.0;

/// What the cursor of a client is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Watch {
    /// The recording.
    pub source: usize,
    /// The process.
    pub pid: u32,
}

/// The part of the map that a client shows, and how often.
#[derive(Clone, Debug, PartialEq)]
pub struct View {
    /// The cells.
    pub request: ViewRequest,
    /// Frames wanted in a second.
    pub hz: f64,
}

/// A question.
#[derive(Clone, Debug, PartialEq)]
pub struct Query {
    /// The answer names it.
    pub id: u64,
    /// What is asked for.
    pub kind: String,
    /// What the kind takes.
    pub parameters: Map<String, Value>,
}

/// Something that a client says.
#[derive(Clone, Debug, PartialEq)]
pub enum Inbound {
    /// `watch`
    Watch(Watch),
    /// `view`
    View(View),
    /// `ack`
    Ack {
        /// Of a frame that was drawn.
        seq: u32,
    },
    /// `cursor`
    Cursor(Command),
    /// `query`
    Query(Query),
    /// `model`
    Model {
        /// The policy wanted beside the heap, if any.
        policy: Option<String>,
    },
}

/// A message that could not be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unreadable {
    /// The query's, if it was one.
    pub id: Option<u64>,
    /// What is wrong.
    pub message: String,
}

impl Inbound {
    /// Reads a message.
    ///
    /// # Errors
    /// When it is no JSON object of a known type with exactly that type's fields.
    pub fn parse(text: &str) -> Result<Self, Unreadable> {
        let wrong = |message: String| Unreadable { id: None, message };
        let mut fields: Map<String, Value> = serde_json::from_str(text).map_err(|error| wrong(error.to_string()))?;
        let kind = fields.remove("type");
        let kind = kind.as_ref().and_then(Value::as_str).ok_or_else(|| wrong("type is missing".to_owned()))?;
        match kind {
            "watch" => take(fields).map(Self::Watch),
            "view" => view(fields).map(Self::View),
            "ack" => take(fields).map(|Ack { seq }| Self::Ack { seq }),
            "cursor" => command(fields).map(Self::Cursor),
            "query" => query(fields).map(Self::Query),
            "model" => take(fields).map(|Model { policy }| Self::Model { policy }),
            other => Err(wrong(format!("there is no type {:?}", shortened(other)))),
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawView {
    view: u16,
    mode: String,
    level: i8,
    tiles: Vec<(u64, u32)>,
    hz: f64,
}

fn view(fields: Map<String, Value>) -> Result<View, Unreadable> {
    let wrong = |message: &str| Unreadable { id: None, message: message.to_owned() };
    let RawView { view, mode, level, tiles, hz } = take(fields)?;
    let mode = Mode::from_name(&mode).ok_or_else(|| wrong("there is no such mode"))?;
    let level = Level::new(level).ok_or_else(|| wrong("there is no such level"))?;
    if !(hz > 0.0 && hz <= MOST_HZ) {
        return Err(wrong("hz is above 0 and at most 30"));
    }
    Ok(View { request: ViewRequest { view, mode, level, tiles }, hz })
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Ack {
    seq: u32,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Model {
    #[serde(deserialize_with = "Option::deserialize")]
    policy: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Nothing {}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Play {
    speed: f64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Seek {
    at_ns: u64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Step {
    events: i64,
}

fn command(mut fields: Map<String, Value>) -> Result<Command, Unreadable> {
    let wrong = |message: String| Unreadable { id: None, message };
    let name = fields.remove("command");
    let name = name.as_ref().and_then(Value::as_str).ok_or_else(|| wrong("command is missing".to_owned()))?;
    match name {
        "live" => take(fields).map(|Nothing {}| Command::Live),
        "pause" => take(fields).map(|Nothing {}| Command::Pause),
        "stop" => take(fields).map(|Nothing {}| Command::Stop),
        "play" => {
            let Play { speed } = take(fields)?;
            let fits = speed == 0.0 || (0.25..=64.0).contains(&speed);
            fits.then_some(Command::Play { speed }).ok_or_else(|| wrong("speed is 0.25 to 64, or 0".to_owned()))
        }
        "seek" => take(fields).map(|Seek { at_ns }| Command::Seek { at_ns }),
        "step" => take(fields).map(|Step { events }| Command::Step { events }),
        other => Err(wrong(format!("there is no command {:?}", shortened(other)))),
    }
}

fn query(mut fields: Map<String, Value>) -> Result<Query, Unreadable> {
    let wrong = |id, message: &str| Unreadable { id, message: message.to_owned() };
    let id = fields.remove("id").as_ref().and_then(Value::as_u64).ok_or_else(|| wrong(None, "id is missing"))?;
    match fields.remove("kind") {
        Some(Value::String(kind)) => Ok(Query { id, kind, parameters: fields }),
        _ => Err(wrong(Some(id), "kind is missing")),
    }
}

fn take<T: DeserializeOwned>(fields: Map<String, Value>) -> Result<T, Unreadable> {
    serde_json::from_value(Value::Object(fields))
        .map_err(|error| Unreadable { id: None, message: shortened(&error.to_string()) })
}

/// Errors repeat what was sent; not all of it.
fn shortened(text: &str) -> String {
    text.chars().take(200).collect()
}

/// How a cursor moves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// With the newest event.
    Live,
    /// Not.
    Paused,
    /// By itself.
    Playing,
    /// Not, since there is nothing behind it and never will be.
    Ended,
}

/// How urgent a notice is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Urgency {
    /// Good to know.
    Info,
    /// Something is not as it should be.
    Warning,
    /// Something failed.
    Error,
}

/// Where a cursor stands and what is there; 4 times a second.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[allow(missing_docs, reason = "the fields are those of docs/PROTOCOL.md")]
pub struct Status {
    pub source: usize,
    pub pid: u32,
    pub at_ns: u64,
    pub end_ns: u64,
    pub state: State,
    pub speed: f64,
    pub behind: bool,
    pub events: u64,
    pub events_per_s: u64,
    pub lost: u64,
    pub older_blocks: u64,
    pub older_bytes: u64,
    pub live_blocks: u64,
    pub live_bytes: u64,
    pub taken_bytes: u64,
    pub peak_bytes: u64,
    pub rss_bytes: Option<u64>,
    pub hz: f64,
    pub hz_wanted: f64,
    pub clients: usize,
    pub progress: f64,
}

impl Status {
    /// The place where the cursor stands, as opposed to being on its way or going along with what comes.
    pub fn standing(&self) -> Option<(u64, u64)> {
        let stands = !self.behind && matches!(self.state, State::Paused | State::Ended);
        stands.then_some((self.at_ns, self.events))
    }
}

/// A process that has been seen until the cursor.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[allow(missing_docs, reason = "the fields are those of docs/PROTOCOL.md")]
pub struct Process {
    pub pid: u32,
    pub ppid: u32,
    pub comm: String,
    pub exe: String,
    pub cmdline: Vec<String>,
    pub started_ns: u64,
    pub ended_ns: Option<u64>,
    pub status: Option<String>,
    pub allocator: Option<Allocator>,
    pub live_bytes: u64,
    pub live_blocks: u64,
    pub rss_bytes: Option<u64>,
}

impl Process {
    /// Whether it is the same program in the same state, figures aside.
    pub fn is_as(&self, other: &Self) -> bool {
        let figures = |process: &Self| (process.live_bytes, process.live_blocks, process.rss_bytes);
        let (live_bytes, live_blocks, rss_bytes) = figures(other);
        Self { live_bytes, live_blocks, rss_bytes, ..self.clone() } == *other
    }
}

/// A range of addresses in which the heap lies.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[allow(missing_docs, reason = "the fields are those of docs/PROTOCOL.md")]
pub struct Range {
    pub start: String,
    pub end: String,
    pub kind: &'static str,
    pub label: String,
    pub live_bytes: u64,
    pub live_blocks: u64,
    pub resident_bytes: u64,
}

/// What a cell of a class has as its value, and what the class is called.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[allow(missing_docs, reason = "the fields are those of docs/PROTOCOL.md")]
pub struct NamedClass {
    pub value: u8,
    pub label: String,
}

/// Something that a client is told.
#[derive(Clone, Debug, Serialize)]
#[serde(tag = "type", rename_all = "lowercase")]
#[allow(missing_docs, reason = "the fields are those of docs/PROTOCOL.md")]
pub enum Outbound {
    Hello {
        protocol: u32,
        version: &'static str,
        sources: Vec<super::sources::About>,
        policies: Vec<Named>,
    },
    Sources {
        sources: Vec<super::sources::About>,
    },
    Processes {
        source: usize,
        processes: Vec<Process>,
    },
    Status(Status),
    Regions {
        epoch: u64,
        pid: u32,
        regions: Vec<Range>,
    },
    Palette {
        mode: &'static str,
        classes: Vec<NamedClass>,
    },
    Notice {
        level: Urgency,
        text: String,
    },
    Model {
        source: usize,
        pid: u32,
        policy: &'static str,
        #[serde(flatten)]
        shown: Box<Shown>,
    },
    Reply {
        id: u64,
        result: Value,
    },
    Error {
        id: Option<u64>,
        message: String,
    },
}

impl Outbound {
    /// The message as text.
    pub fn text(&self) -> String {
        // Nothing of these can fail to be written: keys are texts, and figures that are none become null.
        serde_json::to_string(self).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn view(text: &str) -> Result<View, String> {
        match Inbound::parse(text) {
            Ok(Inbound::View(view)) => Ok(view),
            Ok(other) => panic!("{other:?}"),
            Err(error) => Err(error.message),
        }
    }

    #[test]
    fn messages_are_read() {
        let read = |text| Inbound::parse(text).unwrap();
        assert_eq!(read(r#"{"type":"watch","source":1,"pid":7}"#), Inbound::Watch(Watch { source: 1, pid: 7 }));
        assert_eq!(read(r#"{"type":"ack","seq":4294967295}"#), Inbound::Ack { seq: u32::MAX });
        assert_eq!(read(r#"{"type":"cursor","command":"live"}"#), Inbound::Cursor(Command::Live));
        let play = r#"{"type":"cursor","command":"play","speed":0.25}"#;
        assert_eq!(read(play), Inbound::Cursor(Command::Play { speed: 0.25 }));
        let seek = r#"{"type":"cursor","command":"seek","at_ns":12}"#;
        assert_eq!(read(seek), Inbound::Cursor(Command::Seek { at_ns: 12 }));
        let step = r#"{"type":"cursor","command":"step","events":-3}"#;
        assert_eq!(read(step), Inbound::Cursor(Command::Step { events: -3 }));
        assert_eq!(read(r#"{"type":"model","policy":null}"#), Inbound::Model { policy: None });
        let policy = Some("first-fit".to_owned());
        assert_eq!(read(r#"{"type":"model","policy":"first-fit"}"#), Inbound::Model { policy });
        let query = read(r#"{"type":"query","id":3,"kind":"at","address":"0x10"}"#);
        let Inbound::Query(query) = query else { panic!("{query:?}") };
        assert_eq!((query.id, query.kind.as_str()), (3, "at"));
        assert_eq!(query.parameters["address"], "0x10");
        let view = view(r#"{"type":"view","view":9,"mode":"heat","level":-4,"tiles":[[5,2],[9,1]],"hz":30}"#).unwrap();
        let level = Level::new(-4).unwrap();
        assert_eq!(view.request, ViewRequest { view: 9, mode: Mode::Heat, level, tiles: vec![(5, 2), (9, 1)] });
        assert!((view.hz - 30.0).abs() < f64::EPSILON);
    }

    #[test]
    fn what_is_not_exactly_so_is_refused() {
        let refused = [
            "",
            "null",
            "[]",
            "{}",
            r#"{"type":7}"#,
            r#"{"type":"dance"}"#,
            r#"{"type":"watch","source":1}"#,
            r#"{"type":"watch","source":1,"pid":7,"more":1}"#,
            r#"{"type":"watch","source":-1,"pid":7}"#,
            r#"{"type":"watch","source":"1","pid":7}"#,
            r#"{"type":"watch","source":1,"pid":4294967296}"#,
            r#"{"type":"ack","seq":4294967296}"#,
            r#"{"type":"cursor"}"#,
            r#"{"type":"cursor","command":"live","speed":1}"#,
            r#"{"type":"cursor","command":"play"}"#,
            r#"{"type":"cursor","command":"play","speed":65}"#,
            r#"{"type":"cursor","command":"play","speed":-1}"#,
            r#"{"type":"cursor","command":"seek","at_ns":-1}"#,
            r#"{"type":"model"}"#,
            r#"{"type":"model","policy":7}"#,
            r#"{"type":"model","policy":"buddy","pid":1}"#,
            r#"{"type":"query","kind":"at"}"#,
            r#"{"type":"query","id":1}"#,
            r#"{"type":"watch","source":1,"pid":7} "x""#,
        ];
        for text in refused {
            assert!(Inbound::parse(text).is_err(), "{text}");
        }
        assert_eq!(Inbound::parse(r#"{"type":"query","id":1}"#).unwrap_err().id, Some(1));
        // However long the type is, the error is not.
        let long = format!(r#"{{"type":"{}"}}"#, "x".repeat(60_000));
        assert!(Inbound::parse(&long).unwrap_err().message.len() < 300);
    }

    #[test]
    fn views_stay_within_bounds() {
        let of = |level: i64, mode: &str, tiles: &str, hz: &str| {
            view(&format!(r#"{{"type":"view","view":1,"mode":"{mode}","level":{level},"tiles":{tiles},"hz":{hz}}}"#))
        };
        assert!(of(0, "site", "[]", "0.5").is_ok() && of(-4, "heat", "[[1,2]]", "30").is_ok());
        assert!(of(0, "colour", "[]", "1").is_err());
        assert!(of(99, "site", "[]", "1").is_err() && of(-5, "site", "[]", "1").is_err());
        assert!(of(300, "site", "[]", "1").is_err());
        for tiles in ["[1]", "[[1]]", "[[1,2,3]]", "[[-1,1]]", "[[1,4294967296]]", "[[18446744073709551616,1]]", "{}"] {
            assert!(of(0, "site", tiles, "1").is_err(), "{tiles}");
        }
        for hz in ["31", "0", "-1", "1e400", "null"] {
            assert!(of(0, "site", "[]", hz).is_err(), "{hz}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_without_panic(text in ".{0,200}") {
            let _ = Inbound::parse(&text);
        }

        #[test]
        fn any_object_is_read_without_panic(
            kind in "watch|view|ack|cursor|query|model",
            name in "source|pid|view|mode|level|tiles|hz|seq|command|speed|at_ns|events|id|kind|policy",
            value in "-?[0-9]{1,25}|[0-9]e[0-9]{1,3}|\"[a-z]{0,8}\"|\\[\\[[0-9]{1,20},[0-9]{1,20}\\]\\]|null|true|\\{\\}",
        ) {
            let _ = Inbound::parse(&format!("{{\"type\":\"{kind}\",\"{name}\":{value}}}"));
        }
    }
}
