//! What a client shows of the heap's map, and how fast it draws.
//!
//! A client has few frames under way that it has not drawn yet. What changes meanwhile is drawn into the next one as
//! it is then; so a slow client gets fewer frames, not older ones.

use super::protocol::{NamedClass, Outbound, View};
use super::tiles::{Canvas, Class, Frame, Mode};
use super::watching::Watching;
use crate::report::ReportBuilder;
use crate::report::sites::Sites;
use std::collections::VecDeque;
use std::time::Duration;
use tokio::time::Instant;

/// Frames under way that were not acknowledged.
const UNDER_WAY: usize = 2;
/// How long the player is held for a frame.
const BUDGET: Duration = Duration::from_millis(8);
/// Of the time of a player that does not keep up, a frame's part is one of so many.
const PART_BEHIND: u32 = 12;
/// Over how long the rate is measured that a client reaches.
const MEASURED: Duration = Duration::from_secs(2);

/// A client's map.
#[derive(Debug, Default)]
pub struct Map {
    canvas: Canvas,
    /// Frames wanted in a second; `None` before the first view.
    wanted: Option<f64>,
    under_way: VecDeque<u32>,
    due: Option<Instant>,
    /// When the last frames were sent.
    sent: VecDeque<Instant>,
}

/// A frame to be sent.
#[derive(Debug)]
pub struct Drawn {
    /// To be sent before.
    pub palette: Option<Outbound>,
    /// The binary message.
    pub frame: Vec<u8>,
}

impl Map {
    /// Shows something else from now on.
    ///
    /// # Errors
    /// When that is too much, or not there; the view stays what it was.
    pub fn set_view(&mut self, view: &View) -> Result<(), String> {
        self.canvas.set_view(&view.request).map_err(|error| error.to_string())?;
        self.wanted = Some(view.hz);
        // Whatever was under way is of no use to the client any more, and may never be acknowledged.
        self.under_way.clear();
        self.due = Some(Instant::now());
        Ok(())
    }

    /// The class that a value of a mode stands for, as the client sees it now.
    pub fn class(&self, mode: &str, value: u8) -> Option<Class> {
        self.canvas.class(Mode::from_name(mode)?, value)
    }

    /// The client has drawn a frame.
    pub fn acknowledged(&mut self, seq: u32) {
        self.under_way.retain(|&sent| sent != seq);
    }

    /// When there may be a frame to send; `None` until the client says something.
    pub fn next_due(&self) -> Option<Instant> {
        self.due.filter(|_| self.under_way.len() < UNDER_WAY)
    }

    /// Frames sent in a second, lately, and wanted.
    pub fn rates(&mut self, now: Instant) -> (f64, f64) {
        while self.sent.front().is_some_and(|&sent| now.duration_since(sent) > MEASURED) {
            self.sent.pop_front();
        }
        (self.sent.len() as f64 / MEASURED.as_secs_f64(), self.wanted.unwrap_or(0.0))
    }

    /// Draws what has changed, if it is time for it and the client can take it.
    pub fn draw(&mut self, watching: &Watching, now: Instant) -> Option<Drawn> {
        let wanted = self.wanted?;
        if self.next_due().is_none_or(|due| now < due) {
            return None;
        }
        self.due = Some(now + Duration::from_secs_f64(1.0 / wanted));
        let drawn = watching.stage().with(|player| {
            let begun = Instant::now();
            player.watch(watching.pid());
            let builder = player.builder();
            let heaps = builder.heaps();
            let at = heaps.index_of(watching.pid())?;
            let heap = heaps.heap(&heaps.processes()[at]);
            let Frame { seq, bytes } = self.canvas.frame(heap, builder.last_residency(at), player.at_ns(), BUDGET)?;
            let palette = self.canvas.palette().map(|classes| (classes, self.canvas.mode()));
            let palette = palette.map(|(classes, mode)| Outbound::Palette {
                mode: mode.name(),
                classes: named(&classes, builder, watching.pid()),
            });
            if player.is_behind() {
                self.due = self.due.max(Some(now + PART_BEHIND * begun.elapsed()));
            }
            Some((seq, Drawn { palette, frame: bytes }))
        });
        let (seq, drawn) = drawn?;
        self.under_way.push_back(seq);
        self.sent.push_back(now);
        Some(drawn)
    }
}

fn named(classes: &[(u8, Class)], builder: &ReportBuilder, pid: u32) -> Vec<NamedClass> {
    let sites = builder.sites(pid);
    classes.iter().map(|&(value, class)| NamedClass { value, label: label(class, &sites) }).collect()
}

fn label(class: Class, sites: &Sites<'_>) -> String {
    match class {
        Class::Site(address) => sites.find(address).site,
        Class::Thread(tid) => format!("thread {tid}"),
        Class::Size(class) => match Class::sizes(class) {
            (0, most) => format!("up to {most} B"),
            (least, u64::MAX) => format!("from {least} B"),
            (least, most) => format!("{least} to {most} B"),
        },
        Class::Older => "older than the trace".to_owned(),
    }
}
