//! What the engines work on in one go. Both sides derive it from the ops: nothing of it is told.

use std::ops::Range;

use super::medium::ReadAt as _;
use super::open::Kind;
use super::ops::Op;
use super::space::Space;

/// New bytes of one window.
const NEW: u64 = 16 << 20;

/// Bytes of the bases that go before them.
const CONTEXT: u64 = 48 << 20;

/// Leaves up to this size are context as a whole.
const WHOLE: u64 = 1 << 20;

/// How far the context goes beyond a hole between two runs.
const SLACK: u64 = 16 << 10;

/// Bytes of members, old and new, that share the streams of the code engine.
const GROUP: u64 = 160 << 20;

/// New bytes that are compressed as one, and what of the bases goes before them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Window {
    /// How many new bytes; they go on where those of the window before ended.
    pub(crate) length: u64,
    /// Addresses of the bases, in order, not overlapping.
    pub(crate) context: Vec<Range<u64>>,
}

/// A stretch of new bytes of one op, which runs do not cover, as positions in the op.
pub(crate) fn holes(length: u64, runs: &[super::coarse::Run]) -> impl Iterator<Item = Range<u64>> {
    let starts = std::iter::once(0).chain(runs.iter().map(|run| run.new + run.length));
    let ends = runs.iter().map(|run| run.new).chain(std::iter::once(length));
    starts.zip(ends).map(|(start, end)| start..end).filter(|hole| hole.start < hole.end)
}

/// The windows of all new bytes of `ops`, in order.
pub(crate) fn windows(ops: &[Op], space: &Space<'_>) -> Vec<Window> {
    let mut all = Vec::new();
    let mut window = Window::default();
    let (mut context, mut class) = (0, None);
    let mut close = |window: &mut Window, context: &mut u64| {
        *context = 0;
        let mut done = std::mem::take(window);
        if done.length > 0 {
            done.context = merged(done.context);
            all.push(done);
        }
    };
    for op in ops {
        let Op::New { like, length, runs } = op else { continue };
        let leaf = like.and_then(|leaf| space.leaves().get(leaf));
        let this_class = leaf.map(|leaf| matches!(leaf.kind, Kind::Parse | Kind::Heads));
        // How a stream was coded is another kind of text than what it says.
        if this_class != class && (this_class == Some(true) || class == Some(true)) {
            close(&mut window, &mut context);
        }
        class = this_class;
        let base = leaf.map_or(0..0, |leaf| leaf.range.clone());
        let is_small = base.end - base.start <= WHOLE;
        let mut whole_is_in = false;
        for hole in holes(*length, runs) {
            let mut at = hole.start;
            while at < hole.end {
                let wanted = match is_small {
                    true if whole_is_in || base.is_empty() => Vec::new(),
                    true => vec![base.clone()],
                    false => around(op, &base, &(at..hole.end.min(at + NEW)), space.size()),
                };
                let more = wanted.iter().map(|range| range.end - range.start).sum::<u64>();
                if window.length >= NEW || context + more > CONTEXT && window.length > 0 {
                    close(&mut window, &mut context);
                    whole_is_in = false;
                    continue;
                }
                let part = (hole.end - at).min(NEW - window.length);
                window.length += part;
                at += part;
                context += more;
                window.context.extend(wanted);
                whole_is_in = true;
            }
        }
    }
    close(&mut window, &mut context);
    all
}

/// Where in a large leaf a hole may have come from: between the runs around it.
fn around(op: &Op, base: &Range<u64>, hole: &Range<u64>, size: u64) -> Vec<Range<u64>> {
    let Op::New { runs, length, .. } = op else { return Vec::new() };
    let after = runs.partition_point(|run| run.new < hole.end);
    let before = after.checked_sub(1).and_then(|index| runs.get(index));
    let next = runs.get(after);
    let new_length = hole.end - hole.start;
    let reach = new_length.saturating_add(SLACK);
    let clip = |start: u64, end: u64| start.min(size)..end.min(size);
    let (start, end) = match (before, next) {
        (None, None) => {
            // Nothing is known but that the two leaves are alike: the same relative place.
            let extra = (base.end - base.start).abs_diff(*length).min(CONTEXT / 8) + SLACK;
            let start = base.start.saturating_add(hole.start).saturating_sub(extra).max(base.start);
            let end = base.start.saturating_add(hole.end).saturating_add(extra).min(base.end);
            return if start < end { vec![start..end] } else { Vec::new() };
        }
        (before, next) => (
            before.map_or(base.start, |run| run.old + run.length),
            next.map_or(base.end.max(base.start), |run| run.old),
        ),
    };
    if start <= end && end - start <= 2 * new_length + WHOLE {
        return vec![clip(start.saturating_sub(SLACK), end.saturating_add(SLACK))];
    }
    vec![
        clip(start.saturating_sub(SLACK), start.saturating_add(reach)),
        clip(end.saturating_sub(reach), end.saturating_add(SLACK)),
    ]
}

fn merged(mut ranges: Vec<Range<u64>>) -> Vec<Range<u64>> {
    ranges.sort_by_key(|range| (range.start, range.end));
    let mut merged: Vec<Range<u64>> = Vec::new();
    for range in ranges.into_iter().filter(|range| range.start < range.end) {
        match merged.last_mut() {
            Some(last) if range.start <= last.end => last.end = last.end.max(range.end),
            _ => merged.push(range),
        }
    }
    merged
}

/// The ops of the code engine, by their index, in groups that share their streams.
pub(crate) fn groups(ops: &[Op], space: &Space<'_>) -> Vec<Vec<usize>> {
    let mut groups: Vec<Vec<usize>> = Vec::new();
    let mut filled = u64::MAX;
    for (index, op) in ops.iter().enumerate() {
        let Op::Code { like, length } = op else { continue };
        let old = space.leaves().get(*like).map_or(0, |leaf| leaf.range.end - leaf.range.start);
        let bytes = old.saturating_add(*length);
        filled = filled.saturating_add(bytes);
        match groups.last_mut() {
            Some(group) if filled <= GROUP => group.push(index),
            _ => {
                groups.push(vec![index]);
                filled = bytes;
            }
        }
    }
    groups
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::delta::coarse::Run;

    #[test]
    fn holes_are_what_runs_leave() {
        let run = |new, length| Run { new, old: 0, length };
        let found: Vec<_> = holes(100, &[run(0, 10), run(10, 5), run(20, 70)]).collect();
        assert_eq!(found, [15..20, 90..100]);
        assert_eq!(holes(7, &[]).collect::<Vec<_>>(), [0..7]);
        assert_eq!(holes(7, &[run(0, 7)]).count(), 0);
    }

    #[test]
    fn ranges_are_merged() {
        assert_eq!(merged(vec![5..9, 0..3, 3..4, 8..20, 30..30]), [0..4, 5..20]);
    }
}
