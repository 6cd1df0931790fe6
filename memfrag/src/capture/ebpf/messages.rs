//! The messages of an object that tells its decisions; the ordinary one has none.

use aya::Ebpf;
use aya_log::EbpfLogger;
use log::{Level, Log, Metadata, Record};

/// Prints to stderr.
#[derive(Debug)]
struct Stderr;

impl Log for Stderr {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.level() <= Level::Debug
    }

    fn log(&self, record: &Record<'_>) {
        if self.enabled(record.metadata()) {
            eprintln!("memfrag: bpf: {}", record.args());
        }
    }

    fn flush(&self) {}
}

/// What the programs have to say.
pub(super) struct Messages {
    logger: Option<EbpfLogger<Stderr>>,
}

impl Messages {
    /// The messages of a loaded object. Call it when its programs are loaded: it takes their ring.
    pub(super) fn of(ebpf: &mut Ebpf) -> Self {
        Self { logger: EbpfLogger::init_with_logger(ebpf, Stderr).ok() }
    }

    /// Prints what has come.
    pub(super) fn print(&mut self) {
        if let Some(logger) = &mut self.logger {
            logger.flush();
        }
    }
}
