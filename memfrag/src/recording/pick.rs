//! Single chunks of events, in any order.

use super::chunk::HEADER;
use super::decode::Decoder;
use super::reader::{EventsChunk, Reader};
use memfrag_common::Event;

/// Reads chunks of events one at a time, in any order; see [`Reader::pick`].
pub struct Picker<'a> {
    reader: &'a Reader,
    /// `None` when the system had no memory for it.
    decoder: Option<Decoder>,
    bytes: Vec<u8>,
    events: Vec<Event>,
}

impl std::fmt::Debug for Picker<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Picker").finish_non_exhaustive()
    }
}

impl Reader {
    /// Reads single chunks of events. Nothing that lies between them is looked at.
    pub fn pick(&self) -> Picker<'_> {
        Picker { reader: self, decoder: Decoder::new().ok(), bytes: Vec::new(), events: Vec::new() }
    }
}

impl Picker<'_> {
    /// The events of a chunk of the same recording; `None` when it is damaged. They borrow from `self`: their room is
    /// used again.
    pub fn read(&mut self, chunk: &EventsChunk) -> Option<&[Event]> {
        let header = self.reader.chunk(chunk.position, &mut self.bytes)?;
        let payload = self.bytes.get(HEADER + header.meta_length as usize..)?;
        self.decoder.as_mut()?.decode(&header, payload, &mut self.events)?;
        Some(&self.events)
    }
}
