//! A chart of live and resident bytes over time, in characters.

/// Rows of a chart.
pub(super) const HEIGHT: usize = 6;

const EIGHTHS: [char; 9] = [' ', '▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

/// A level that is resident but not live.
const RESIDENT: char = '░';

/// The chart's rows, top first, each `width` characters: live bytes filled, resident bytes above them shaded. Columns
/// show the most that was reached in their time. Also gives the value of the top.
///
/// `live` and `resident` have one value a step; readings of resident bytes may be missing and then hold on.
pub(super) fn draw(live: &[u64], resident: &[Option<u64>], width: usize) -> (Vec<String>, u64) {
    let live = columns(live, width);
    let mut last = None;
    // Before the first reading nothing is known, so nothing is drawn.
    let held: Vec<u64> = resident
        .iter()
        .map(|reading| {
            last = reading.or(last);
            last.unwrap_or(0)
        })
        .collect();
    let resident = columns(&held, width);
    let top = live.iter().chain(&resident).copied().max().unwrap_or(0).max(1);
    // In eighths of a row; what is there at all is seen.
    let level = |value: u64| {
        let scaled = ((u128::from(value) * (HEIGHT * 8) as u128 + u128::from(top / 2)) / u128::from(top)) as usize;
        if value > 0 { scaled.max(1) } else { 0 }
    };
    let rows = (0..HEIGHT).rev().map(|row| {
        let cell = |column: usize| {
            let filled = level(live[column]).saturating_sub(row * 8).min(8);
            let shaded = level(resident[column]).saturating_sub(row * 8) >= 4;
            if filled == 0 && shaded { RESIDENT } else { EIGHTHS[filled] }
        };
        (0..width).map(cell).collect::<String>().trim_end().to_owned()
    });
    (rows.collect(), top)
}

/// A bar of `width` columns for `all`, of which `size` is filled behind the first `before`; what is there at all is
/// seen.
pub(super) fn bar(before: u64, size: u64, all: u64, width: usize) -> String {
    if size == 0 || all == 0 {
        return String::new();
    }
    let eighths = |value: u64| (u128::from(value.min(all)) * (width * 8) as u128 / u128::from(all)) as usize;
    let (start, end) = (eighths(before), eighths(before.saturating_add(size)));
    // Bars begin at whole columns: there is no character whose left part is empty.
    let start = (start / 8).min(width.saturating_sub(1));
    let filled = (end - start * 8).max(1).min((width - start) * 8);
    let mut bar = " ".repeat(start);
    bar.extend(std::iter::repeat_n('█', filled / 8));
    if !filled.is_multiple_of(8) {
        bar.push(['▏', '▎', '▍', '▌', '▋', '▊', '▉'][filled % 8 - 1]);
    }
    bar
}

/// Spreads or folds the steps over `width` columns, keeping maxima.
fn columns(steps: &[u64], width: usize) -> Vec<u64> {
    (0..width)
        .map(|column| {
            let start = column * steps.len() / width;
            let end = ((column + 1) * steps.len() / width).max(start + 1).min(steps.len());
            steps.get(start..end).and_then(|steps| steps.iter().max()).copied().unwrap_or(0)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn live_is_filled_and_resident_shaded() {
        let live = [0, 24, 48, 24, 12, 1];
        let resident = [None, Some(24), Some(48), None, Some(40), Some(36)];
        let (rows, top) = draw(&live, &resident, 6);
        assert_eq!(top, 48);
        assert_eq!(rows, ["  █░", "  █░░░", "  █░░░", " ███░░", " ███▄░", " ████▁"].map(str::to_owned));
    }

    #[test]
    fn bars_stand_behind_each_other() {
        assert_eq!(bar(0, 50, 100, 8), "████");
        assert_eq!(bar(50, 25, 100, 8), "    ██");
        assert_eq!(bar(75, 20, 100, 8), "      █▌");
        assert_eq!(bar(99, 1, 100, 8), "       █");
        assert_eq!(bar(10, 0, 100, 8), "");
        assert_eq!(bar(500, 900, 100, 2), " █");
    }

    #[test]
    fn any_shape_fits() {
        for steps in [0, 1, 5, 76, 1000] {
            for width in [1, 2, 77] {
                let live: Vec<u64> = (0..steps).map(|step| step * step).collect();
                let (rows, top) = draw(&live, &vec![None; steps as usize], width);
                assert!(rows.iter().all(|row| row.chars().count() <= width));
                assert_eq!(top, live.last().copied().unwrap_or(0).max(1), "the maximum is never lost");
            }
        }
    }
}
