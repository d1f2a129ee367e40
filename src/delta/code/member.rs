//! One member: the equivalences, then the bytes, through the coder. Both directions are one text.

use super::coder::{Coder, Number, fold, unfold};
use super::map::{Equivalence, Map, Projector};
use super::model::{Model, Scene};
use super::site::{Layout, Segment, Site, Sites};
use super::track::{Echo, Recall, Tracker};
use crate::error::{Error, Result};

/// Right guesses in a row that end a stretch of coded bytes.
const QUIET: usize = 24;
/// Bytes that are predicted at a time.
const SEGMENT: usize = 1 << 20;

/// What members of a patch share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) model: Model,
    pub(super) echo: Echo,
    recall: Recall,
    counts: Number,
    layout: Number,
    gaps: Number,
    lengths: Number,
    jumps: Number,
    skips: Number,
    stretches: Number,
}

impl Shared {
    pub(super) fn new(bits: u32) -> Shared {
        Shared {
            model: Model::new(bits),
            echo: Echo::new(),
            recall: Recall::new(),
            counts: Number::new(1),
            layout: Number::new(4),
            gaps: Number::new(33),
            lengths: Number::new(33),
            jumps: Number::new(33),
            skips: Number::new(33),
            stretches: Number::new(33),
        }
    }
}

fn size(value: u32) -> usize {
    (32 - value.leading_zeros()) as usize
}

#[cold]
fn damaged(what: &'static str) -> Error {
    Error::invalid(what)
}

/// Codes where the new file lies in memory.
pub(super) fn code_layout<C: Coder>(coder: &mut C, shared: &mut Shared, layout: &Layout) -> Result<Layout> {
    let n = &mut shared.layout;
    let segments = n.code(coder, 0, layout.segments.len() as u32);
    if segments == 0 {
        return Ok(Layout::default());
    }
    let ranges = n.code(coder, 0, layout.code.len() as u32);
    if segments > 64 || ranges > 4096 {
        return Err(damaged("a patch names more parts of an executable than there can be"));
    }
    let base = u64::from(n.code(coder, 1, layout.base as u32))
        | u64::from(n.code(coder, 1, (layout.base >> 32) as u32)) << 32;
    let mut parts = Vec::new();
    let mut end = 0u32;
    let mut shift = 0u32;
    for index in 0..segments as usize {
        let s = layout.segments.get(index).copied().unwrap_or(Segment {
            offset: 0,
            address: 0,
            length: 0,
            memory: 0,
        });
        let offset = end.wrapping_add(n.code(coder, 2, s.offset.wrapping_sub(end)));
        let address = offset.wrapping_add(shift).wrapping_add(n.code(
            coder,
            2,
            s.address.wrapping_sub(s.offset).wrapping_sub(shift),
        ));
        shift = address.wrapping_sub(offset);
        let length = n.code(coder, 3, s.length);
        let memory = length.wrapping_add(n.code(coder, 3, s.memory.wrapping_sub(s.length)));
        end = offset.wrapping_add(length);
        parts.push(Segment { offset, address, length, memory });
    }
    let mut code = Vec::new();
    let mut end = 0u32;
    for index in 0..ranges as usize {
        let (from, to) = layout.code.get(index).copied().unwrap_or_default();
        let from = end.wrapping_add(n.code(coder, 2, from.wrapping_sub(end)));
        let to = from.wrapping_add(n.code(coder, 3, to.wrapping_sub(from)));
        end = to;
        code.push((from, to));
    }
    Layout::new(base, parts, code).ok_or_else(|| damaged("a patch lays an executable out where it cannot be"))
}

/// Codes which bytes of the new file are like which of the old one.
pub(super) fn code_equivalences<C: Coder>(
    coder: &mut C,
    shared: &mut Shared,
    list: &[Equivalence],
    old: usize,
    new: usize,
) -> Result<Vec<Equivalence>> {
    let count = shared.counts.code(coder, 0, list.len() as u32) as usize;
    if count > most(new) {
        return Err(damaged("a patch has more pieces than its size allows"));
    }
    let mut result = Vec::with_capacity(count.min(1 << 16));
    let (mut end, mut source) = (0u32, 0u32);
    let mut context = (0, 0, 0);
    for index in 0..count {
        let given = list.get(index).copied().unwrap_or_default();
        let gap = shared.gaps.code(coder, context.0, given.new.wrapping_sub(end));
        let expected = source.wrapping_add(gap);
        let jump = shared.jumps.code(coder, context.2, fold(given.old.wrapping_sub(expected) as i32));
        let length = shared.lengths.code(coder, size(jump), given.length);
        let equivalence = Equivalence {
            new: end.wrapping_add(gap),
            old: expected.wrapping_add(unfold(jump) as u32),
            length,
        };
        let fits = |start: u32, base: u32, limit: usize| {
            start >= base && start.checked_add(length).is_some_and(|end| end as usize <= limit)
        };
        if length == 0 || !fits(equivalence.new, end, new) || !fits(equivalence.old, 0, old) {
            return Err(damaged("a patch copies bytes that are not there"));
        }
        context = (size(length), size(jump).min(16) + if gap > 0 { 16 } else { 0 }, size(jump));
        context.2 = context.1.min(32);
        end = equivalence.new + length;
        source = equivalence.old + length;
        result.push(equivalence);
        if coder.ended() {
            return Err(damaged("a patch ends in the middle of its pieces"));
        }
    }
    Ok(result)
}

/// The most equivalences that a member of `new` bytes may have.
pub(super) fn most(new: usize) -> usize {
    new / 16 + 64
}

/// Everything that the bytes of one member depend on.
pub(super) struct Member<'a> {
    pub(super) old: &'a [u8],
    pub(super) projector: Projector<'a>,
    pub(super) tracker: Tracker,
    hits: u32,
    luck: u32,
}

impl<'a> Member<'a> {
    pub(super) fn new(
        old: &'a [u8],
        sites: &'a Sites,
        layout: &'a Layout,
        list: &[Equivalence],
    ) -> Member<'a> {
        let map = Map::new(&sites.layout, layout, list);
        Member {
            old,
            projector: Projector { old: sites, new: layout, map },
            tracker: Tracker::default(),
            hits: 0,
            luck: 0,
        }
    }

    /// Codes all bytes of the member. When encoding `new` holds them, when decoding it receives them.
    pub(super) fn code<C: Coder>(
        &mut self,
        coder: &mut C,
        shared: &mut Shared,
        list: &[Equivalence],
        new: &mut [u8],
        encoding: bool,
    ) -> Result<()> {
        let mut end = 0usize;
        let mut guess = Vec::new();
        let mut runs = Vec::new();
        for equivalence in
            list.iter().copied().chain([Equivalence { new: new.len() as u32, old: 0, length: 0 }])
        {
            let start = equivalence.new as usize;
            for at in end..start {
                self.byte(coder, shared, new, at, None, 0);
            }
            end = start + equivalence.length as usize;
            let mut from = 0usize;
            while from < equivalence.length as usize {
                let length = SEGMENT.min(equivalence.length as usize - from);
                let place = start + from;
                let source = equivalence.old as usize + from;
                guess.clear();
                guess.extend_from_slice(&self.old[source..source + length]);
                runs.clear();
                if encoding {
                    self.foresee(&mut guess, source, &new[place..place + length], place);
                    find_runs(&guess, &new[place..place + length], &mut runs);
                }
                self.segment(coder, shared, new, place, source, &mut guess, &runs, encoding)?;
                from += length;
            }
            if coder.ended() {
                return Err(damaged("a patch ends before its bytes do"));
            }
        }
        shared.echo.end(new);
        Ok(())
    }

    /// Writes the predictions of a whole segment into `guess`, learning as the decoder will.
    fn foresee(&mut self, guess: &mut [u8], source: usize, new: &[u8], place: usize) {
        let sites: &[Site] = &self.projector.old.sites;
        let first = sites.partition_point(|site| (site.at() as usize) < source);
        for &site in &sites[first..] {
            let at = site.at() as usize - source.min(site.at() as usize);
            let width = site.width() as usize;
            if at + width > guess.len() {
                break;
            }
            if let Some((value, origin)) = self.projector.predict(site, (place + at) as u32) {
                guess[at..at + width].copy_from_slice(&value.to_le_bytes()[..width]);
                let real = &new[at..at + width];
                if real != &guess[at..at + width] {
                    self.projector.learn(site, origin, read(real));
                }
            }
        }
    }

    #[allow(clippy::too_many_arguments)]
    fn segment<C: Coder>(
        &mut self,
        coder: &mut C,
        shared: &mut Shared,
        new: &mut [u8],
        place: usize,
        source: usize,
        guess: &mut [u8],
        runs: &[(u32, u32)],
        encoding: bool,
    ) -> Result<()> {
        let sites: &[Site] = &self.projector.old.sites;
        let mut next = sites.partition_point(|site| (site.at() as usize) < source);
        let mut runs = runs.iter();
        let mut at = 0usize;
        let mut stretch_context = 0usize;
        // The reference that is being written: where it ends, what was said, from which origin.
        let mut open: Option<(usize, Site, u32)> = None;
        let mut wrong = false;
        while at < guess.len() {
            let &(skip, stretch) = runs.next().unwrap_or(&(0, 0));
            let skip = shared.skips.code(coder, stretch_context, skip) as usize;
            if skip > guess.len() - at {
                return Err(damaged("a patch copies more bytes than a piece has"));
            }
            let stop = at + skip;
            if !encoding {
                if let Some((to, site, origin)) = open
                    && to <= stop
                {
                    new[place + at..place + to].copy_from_slice(&guess[at..to]);
                    let from = to - site.width() as usize;
                    self.settle(site, origin, &guess[from..to], &new[place + from..place + to]);
                    open = None;
                }
                while let Some(&site) = sites.get(next) {
                    let from = site.at() as usize - source;
                    let to = from + site.width() as usize;
                    if from >= stop {
                        break;
                    }
                    next += 1;
                    if to > guess.len() {
                        break;
                    }
                    if let Some((value, origin)) = self.projector.predict(site, (place + from) as u32) {
                        guess[from..to].copy_from_slice(&value.to_le_bytes()[..to - from]);
                        if to > stop {
                            open = Some((to, site, origin));
                        }
                    }
                }
                new[place + at..place + stop].copy_from_slice(&guess[at..stop]);
            } else {
                while sites.get(next).is_some_and(|site| (site.at() as usize) < source + stop) {
                    next += 1;
                }
            }
            if skip > 0 {
                self.hits = if skip >= 32 { u32::MAX } else { self.hits << skip | ((1 << skip) - 1) };
            }
            at = stop;
            if at == guess.len() {
                break;
            }
            let stretch = shared.stretches.code(coder, size(skip as u32), stretch) as usize;
            if stretch == 0 || stretch > guess.len() - at {
                return Err(damaged("a patch changes more bytes than a piece has"));
            }
            stretch_context = size(stretch as u32);
            for here in at..at + stretch {
                if let Some(&site) = sites.get(next)
                    && site.at() as usize - source == here
                {
                    let to = here + site.width() as usize;
                    if to <= guess.len() {
                        wrong = false;
                        if !encoding
                            && let Some((value, origin)) = self.projector.predict(site, (place + here) as u32)
                        {
                            guess[here..to].copy_from_slice(&value.to_le_bytes()[..to - here]);
                            open = Some((to, site, origin));
                        }
                    }
                    next += 1;
                }
                let field = match next.checked_sub(1).and_then(|index| sites.get(index)) {
                    Some(site)
                        if (site.end() as usize) > source + here && site.at() as usize <= source + here =>
                    {
                        ((1 + (source + here - site.at() as usize) as u32) & 7) | u32::from(wrong) << 3
                    }
                    _ => 0,
                };
                let behind = if source + here > 0 { u32::from(self.old[source + here - 1]) } else { 0 };
                let ahead = self.old.get(source + here + 1).map_or(0, |&byte| u32::from(byte));
                self.byte(coder, shared, new, place + here, Some((guess[here], ahead, behind)), field);
                wrong = field != 0 && (wrong || new[place + here] != guess[here]);
                if let Some((to, site, origin)) = open
                    && to == here + 1
                {
                    let from = to - site.width() as usize;
                    self.settle(site, origin, &guess[from..to], &new[place + from..place + to]);
                    open = None;
                }
            }
            at += stretch;
            if coder.ended() {
                return Err(damaged("a patch ends before its bytes do"));
            }
        }
        Ok(())
    }

    fn settle(&mut self, site: Site, origin: u32, guess: &[u8], real: &[u8]) {
        if guess != real {
            self.projector.learn(site, origin, read(real));
        }
    }

    #[inline]
    fn byte<C: Coder>(
        &mut self,
        coder: &mut C,
        shared: &mut Shared,
        new: &mut [u8],
        at: usize,
        guess: Option<(u8, u32, u32)>,
        field: u32,
    ) {
        let place = self.tracker.place(new, at, self.projector.new);
        let (echo, echo_length, echo_state) = shared.echo.look(new, at);
        let before = before(new, at);
        let mut scene = Scene {
            before,
            guess: 256,
            ahead: 0,
            behind: 0,
            hits: self.hits,
            part: place.part,
            prefix: place.prefix,
            previous: place.previous,
            earlier: place.earlier,
            at: at as u32,
            field,
            echo,
            echo_length,
            echo_state,
        };
        let Some((guess, ahead, behind)) = guess else {
            let (guess, source) = shared.recall.look(&scene);
            scene.guess = u32::from(guess);
            scene.hits = self.luck;
            scene.field = 16 + source;
            let hit = shared.model.hit(coder, &scene, u32::from(new[at] == guess));
            self.luck = self.luck << 1 | hit;
            new[at] = if hit != 0 { guess } else { shared.model.byte(coder, &scene, new[at]) };
            shared.recall.learn(new[at]);
            return;
        };
        scene.guess = u32::from(guess);
        scene.ahead = ahead;
        scene.behind = behind;
        let hit = shared.model.hit(coder, &scene, u32::from(new[at] == guess));
        self.hits = self.hits << 1 | hit;
        if hit != 0 {
            new[at] = guess;
            return;
        }
        new[at] = shared.model.byte(coder, &scene, new[at]);
    }
}

fn before(new: &[u8], at: usize) -> u64 {
    match at.checked_sub(8).map(|from| &new[from..at]) {
        Some(b) => u64::from_be_bytes([b[0], b[1], b[2], b[3], b[4], b[5], b[6], b[7]]),
        None => new[..at].iter().fold(0, |sum, &byte| sum << 8 | u64::from(byte)),
    }
}

fn read(bytes: &[u8]) -> u64 {
    bytes.iter().rev().fold(0, |sum, &byte| sum << 8 | u64::from(byte))
}

/// Splits a segment into bytes to skip and bytes to code.
fn find_runs(guess: &[u8], new: &[u8], runs: &mut Vec<(u32, u32)>) {
    let mut at = 0;
    while at < new.len() {
        let skip = super::align::common(&guess[at..], &new[at..]);
        let start = at + skip;
        let mut end = start;
        while end < new.len() {
            if guess[end] != new[end] {
                end += 1;
                continue;
            }
            let same = super::align::common(&guess[end..], &new[end..]);
            if same >= QUIET || end + same == new.len() {
                break;
            }
            end += same;
        }
        runs.push((skip as u32, (end - start) as u32));
        at = end;
    }
}
