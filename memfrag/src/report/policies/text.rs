//! A heap beside policies, for the terminal.

use super::model::{Comparison, Document, Outcome, Real};
use crate::report::page::{Page, Style, Tone, clean, shorten};
use crate::report::units::{bytes, count, duration, plural};

/// Up to so many policies stand beside the heap with all figures, more of them with those that matter most.
const MOST_BESIDE: usize = 3;

/// Below this much, in bytes, nothing is there to be gained.
const LITTLE: u64 = 1 << 20;

/// The document as text, with a line feed at its end.
pub fn render(document: &Document, style: Style) -> String {
    let mut page = Page::new(style);
    let name = if document.comm.is_empty() { "(unknown)" } else { &document.comm };
    let name = page.style.paint(Tone::Heading, &clean(name));
    let mut facts = vec![format!("pid {}", document.pid)];
    facts.extend(document.glibc.iter().map(|version| format!("glibc {version}")));
    facts.extend(document.settings.iter().map(|word| clean(word)));
    page.line(&format!("{name}  {}", facts.join(" · ")));
    page.field("Moment", None, &format!("{} after the trace began", duration(document.real.at_ns)));
    if let Some(reason) = &document.left_out {
        page.field("Left out", None, &format!("policies that are glibc's: {reason}"));
    }
    for outcome in &document.policies {
        if let (Some(share), Some(exact)) = (outcome.agreement, outcome.exact_placements) {
            let tone = if share >= 0.999 { Tone::Good } else { Tone::Warning };
            let placed = plural(outcome.placements, "address", "addresses");
            page.field("Agreement", Some(tone), &format!("{} of {placed} foretold, {}", count(exact), percent(share)));
        }
    }
    if document.lost_events > 0 {
        let lost = plural(document.lost_events, "event was", "events were");
        page.field(
            "",
            Some(Tone::Warning),
            &format!("! {lost} lost: from there on blocks are where they should not be"),
        );
    }
    if document.policies.len() <= MOST_BESIDE {
        page.beside(&document.real, &document.policies);
    } else {
        page.ranked(&document.real, &document.policies);
    }
    page.line("");
    page.meaning(&document.real, &document.policies);
    page.heading("The policies: what to set, or what they are");
    for outcome in &document.policies {
        page.explained(outcome);
    }
    page.text
}

/// A share, so that only all of it reads as 100 %.
pub fn percent(share: f64) -> String {
    if share >= 1.0 { "100 %".to_owned() } else { format!("{:.3} %", (share * 100_000.0).floor() / 1000.0) }
}

const UNKNOWN: &str = "–";

fn share(share: Option<f64>) -> String {
    share.map_or_else(|| UNKNOWN.to_owned(), |share| format!("{:.1} %", share * 100.0))
}

fn of_all(part: Option<u64>, all: Option<u64>) -> String {
    match (part, all) {
        (Some(part), Some(all)) => format!("{} of {}", count(part), count(all)),
        _ => UNKNOWN.to_owned(),
    }
}

/// What a figure's row is called, what the heap has there, and what a policy.
type Figure = (&'static str, fn(&Real) -> String, fn(&Outcome) -> String);

fn unknown<T>(_: &T) -> String {
    UNKNOWN.to_owned()
}

fn known(figure: Option<u64>, text: fn(u64) -> String) -> String {
    figure.map_or_else(|| UNKNOWN.to_owned(), text)
}

/// The figures of the dashboard's comparison, in its order.
const FIGURES: [Figure; 14] = [
    ("Live", |it| bytes(it.requested_bytes), |it| bytes(it.requested_bytes)),
    ("Taken by blocks", |it| bytes(it.taken_bytes), |it| bytes(it.taken_bytes)),
    ("Footprint", |it| bytes(it.footprint_bytes), |it| bytes(it.final_footprint_bytes)),
    ("Peak footprint", unknown, |it| bytes(it.peak_footprint_bytes)),
    ("Resident", |it| known(it.resident_bytes, bytes), unknown),
    ("Resident bound", |it| bytes(it.resident_bound_bytes), |it| bytes(it.resident_bound_bytes)),
    ("Internal fragmentation", |it| share(it.internal_fragmentation), |it| share(it.internal_fragmentation)),
    ("External fragmentation", |it| share(it.external_fragmentation), |it| share(it.external_fragmentation)),
    ("Free pieces", |it| count(it.holes), |it| count(it.holes)),
    ("Largest hole", |it| bytes(it.largest_hole_bytes), |it| bytes(it.largest_hole_bytes)),
    ("Failed requests", |it| count(it.failed), |it| count(it.failed)),
    ("Growths", |it| known(it.growths, count), |it| count(it.growths)),
    ("Avoidable growths", |it| known(it.avoidable_growths, count), |it| count(it.avoidable_growths)),
    ("Foretold", unknown, |it| it.agreement.map_or_else(|| UNKNOWN.to_owned(), percent)),
];

impl Page {
    /// All figures, a column for the heap and one for each policy.
    fn beside(&mut self, real: &Real, policies: &[Outcome]) {
        let names = policies.iter().map(|outcome| format!("{:>16}", outcome.policy)).collect::<Vec<_>>().concat();
        self.head(&format!("  {:<24}{:>16}{names}", "", "real heap"));
        for (name, of_heap, of_policy) in FIGURES {
            let cells: Vec<String> = policies.iter().map(|outcome| format!("{:>16}", of_policy(outcome))).collect();
            self.line(&format!("  {name:<24}{:>16}{}", of_heap(real), cells.concat()));
        }
    }

    /// The figures that matter most, a row for the heap and one for each policy.
    fn ranked(&mut self, real: &Real, policies: &[Outcome]) {
        let row = |name: &str, cells: [String; 7]| {
            let [peak, end, bound, internal, external, hole, growths] = cells;
            format!("  {name:<14}{peak:>11}{end:>11}{bound:>11}{internal:>9}{external:>9}{hole:>11}{growths:>17}")
        };
        let above = ["footprint", "footprint", "resident", "lost in", "free", "largest", "growths"];
        self.head(&row("", above.map(str::to_owned)));
        let below = ["peak", "at the end", "bound", "blocks", "between", "hole", "avoidable"];
        let below = self.style.paint(Tone::Quiet, &row("", below.map(str::to_owned)));
        self.line(&below);
        self.line(&row(
            "real heap",
            [
                UNKNOWN.to_owned(),
                bytes(real.footprint_bytes),
                bytes(real.resident_bound_bytes),
                share(real.internal_fragmentation),
                share(real.external_fragmentation),
                bytes(real.largest_hole_bytes),
                of_all(real.avoidable_growths, real.growths),
            ],
        ));
        for outcome in policies {
            self.line(&row(
                &outcome.policy,
                [
                    bytes(outcome.peak_footprint_bytes),
                    bytes(outcome.final_footprint_bytes),
                    bytes(outcome.resident_bound_bytes),
                    share(outcome.internal_fragmentation),
                    share(outcome.external_fragmentation),
                    bytes(outcome.largest_hole_bytes),
                    of_all(Some(outcome.avoidable_growths), Some(outcome.growths)),
                ],
            ));
        }
    }

    fn explained(&mut self, outcome: &Outcome) {
        let about = shorten(outcome.environment.unwrap_or(outcome.about), self.style.width().saturating_sub(18));
        self.line(&format!("  {:<16}{about}", outcome.policy));
    }

    /// What the figures mean, in some sentences.
    fn meaning(&mut self, real: &Real, policies: &[Outcome]) {
        for sentence in meaning(real, policies) {
            self.remark(&sentence);
        }
    }

    /// The heap beside some policies, as a part of the report.
    pub(in crate::report) fn comparison(&mut self, comparison: &Comparison) {
        let Comparison { real, policies } = comparison;
        self.heading("Beside other ways to place the same blocks");
        self.ranked(real, policies);
        self.meaning(real, policies);
        self.remark("memfrag model has more policies, glibc's settings among them, and says what each is");
    }
}

/// Whether a policy could serve a C program, and is another one than what it has.
fn is_alternative(outcome: &Outcome) -> bool {
    !matches!(outcome.policy.as_str(), "ptmalloc" | "default" | "compact")
}

fn meaning(real: &Real, policies: &[Outcome]) -> Vec<String> {
    let mut sentences = Vec::new();
    let kept = real.resident_bound_bytes;
    let bound = |outcome: &&Outcome| outcome.resident_bound_bytes;
    if let Some(best) = policies.iter().filter(|outcome| is_alternative(outcome)).min_by_key(bound) {
        let (name, least) = (&best.policy, bytes(best.resident_bound_bytes));
        let gain = kept.saturating_sub(best.resident_bound_bytes);
        sentences.push(if gain >= LITTLE && gain >= kept / 8 {
            format!(
                "what lives is scattered: it reaches into {} of pages, and would into {least} under {name}; memfrag blame \
                 tells whose blocks those are",
                bytes(kept),
            )
        } else {
            format!(
                "what lives reaches into {} of pages, and into {least} under {name}, the best of these: to place it \
                 otherwise would gain little",
                bytes(kept),
            )
        });
    }
    let free = real.footprint_bytes.saturating_sub(kept);
    if free >= LITTLE {
        sentences.push(format!(
            "no live block keeps the other {} of {} that the heap holds: what of them is resident could be returned",
            bytes(free),
            bytes(real.footprint_bytes),
        ));
    }
    if real.resident_at_ns.is_none() {
        let text =
            "nobody looked at the process's pages until then, so the real heap's footprint is only where blocks lie";
        sentences.push(text.to_owned());
    }
    let refused: u64 = policies.iter().map(|outcome| outcome.failed.saturating_sub(real.failed)).sum();
    if refused > 0 {
        let requests = plural(refused, "request", "requests");
        sentences.push(format!("policies could not serve {requests} that the heap served: they hold less for that"));
    }
    sentences
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::analysis::Spread;
    use crate::heap::Heaps;
    use crate::model::{Choice, Lifetimes, Models, Recipe, Setting};
    use crate::target::ProcessInfo;
    use memfrag_common::{Event, Function, Op};

    const MIB: u64 = 1 << 20;

    /// Blocks of 64 bytes of which one in fifty stays, about one a page, under some policies.
    fn document(names: &[&str]) -> Document {
        let mut heaps = Heaps::default();
        heaps.learn(&ProcessInfo { pid: 1, comm: "many".into(), ..ProcessInfo::default() });
        let of = |time: u64, op| Event { time, pid: 1, tid: 1, op };
        let at = |number: u64| 0x5500_0000_0010 + number * 80;
        let function = Function::Malloc;
        let blocks = 20_000;
        let mut events: Vec<Event> = (0..blocks)
            .map(|n| of(n, Op::Alloc { function, align_log2: 0, addr: at(n), size: 64, site: 1, stack: 0 }))
            .collect();
        let freed = (0..blocks).filter(|n| n % 50 > 0);
        events.extend(
            freed.map(|n| of(n + blocks, Op::Free { function: Function::Free, addr: at(n), size: 0, site: 1 })),
        );
        heaps.apply_all(&events);
        let setting = Setting {
            version: crate::glibc::Version { major: 2, minor: 36 },
            arena_max: 8,
            environment: Vec::new(),
            lifetimes: Lifetimes::default(),
        };
        let choices = names.iter().map(|name| Choice::find(name).unwrap()).collect();
        let recipe = Recipe::new(&heaps, 1, &setting, choices);
        let mut models = Models::new(recipe.factory());
        models.apply_all(&events);
        let real = Real::new(heaps.heap(&heaps.processes()[0]), None, 2 * blocks);
        let (comm, glibc) = ("many".to_owned(), Some("2.36".to_owned()));
        Document::new("a.mfrag".to_owned(), 1, comm, glibc, Vec::new(), real, models.heap(1).unwrap())
    }

    #[test]
    fn only_all_is_a_hundred_percent() {
        assert_eq!([percent(1.0), percent(0.999_999_9), percent(0.5)], ["100 %", "99.999 %", "50.000 %"]);
    }

    #[test]
    fn few_policies_stand_beside_the_heap_and_many_below_it() {
        let style = Style { color: false, width: 96 };
        let few = render(&document(&["first-fit", "compact"]), style);
        for (name, _, _) in FIGURES {
            assert!(few.lines().any(|line| line.trim_start().starts_with(name)), "{name}: {few}");
        }
        assert!(few.contains("real heap       first-fit         compact"), "{few}");
        let many = render(&document(&["default", "first-fit", "slabs", "mesh", "compact"]), style);
        let rows: Vec<&str> = many.lines().skip_while(|line| !line.starts_with("  real heap")).take(6).collect();
        let names: Vec<&str> = rows.iter().map(|row| row[2..16].trim_end()).collect();
        assert_eq!(names, ["real heap", "default", "first-fit", "slabs", "mesh", "compact"]);
        assert!(few.lines().chain(many.lines()).all(|line| line.chars().count() <= 96), "{few}{many}");
    }

    #[test]
    fn a_scattered_heap_is_told_from_one_that_is_not() {
        let mut document = document(&["first-fit", "compact"]);
        // One block a page stays under first fit as well.
        let said = meaning(&document.real, &document.policies);
        assert!(said[0].contains("would gain little") && said[0].contains("first-fit"), "{said:?}");
        document.real.resident_bound_bytes = 64 * MIB;
        document.real.footprint_bytes = 80 * MIB;
        let said = meaning(&document.real, &document.policies);
        assert!(said[0].contains("is scattered: it reaches into 64.0 MiB"), "{said:?}");
        assert!(said[1].contains("the other 16.0 MiB of 80.0 MiB"), "{said:?}");
        assert!(said[2].contains("nobody looked"), "{said:?}");
    }

    /// What has no addresses is packed, and reaches into no more pages than it fills.
    #[test]
    fn compaction_bounds_the_others() {
        let document = document(&["first-fit", "compact"]);
        let [first, compact] = &document.policies[..] else { panic!("two policies") };
        assert_eq!(compact.resident_bound_bytes, compact.taken_bytes.next_multiple_of(4096));
        assert!(compact.resident_bound_bytes * 10 < first.resident_bound_bytes);
        let held = (first.taken_bytes + first.free_bytes) as f64;
        let external = first.external_fragmentation.unwrap() * held;
        assert!((external - first.free_bytes as f64).abs() < 1.0, "{external} of {first:?}");
        assert_eq!(document.real.live_blocks, 400);
        assert_eq!(
            document.real.resident_bound_bytes,
            Spread::new(vec![], (0..400).map(|n| n * 4000..n * 4000 + 80).collect()).resident_bound()
        );
    }
}
