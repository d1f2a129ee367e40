//! Against sqv: whatever this crate accepts, sqv accepts.
//!
//! The cases are all forged ones, all that gpg made, and thousands of small changes to them:
//! bits flipped, bytes dropped, packets swapped, armor bent, parts of one case put into another.
//! The seed is fixed; `DISTEDGE_SEED` and `DISTEDGE_CASES` choose another run.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::forge::{self, Case};
use super::gnupg::{self, Gpg};
use super::tests::{judge, open_acceptance};
use super::wire::{CERTIFICATE, SIGNATURE, Shape, armor, binary, packets};
use crate::clock::{Clock, SystemClock};

/// xorshift64*.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, end: usize) -> usize {
        (self.next() % end.max(1) as u64) as usize
    }

    fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.below(from.len())]
    }
}

/// One small change to `bytes`.
fn bend(bytes: &mut Vec<u8>, random: &mut Random) -> &'static str {
    if bytes.is_empty() {
        bytes.push(random.next() as u8);
        return "a byte put in";
    }
    let at = random.below(bytes.len());
    match random.below(6) {
        0..=2 => {
            bytes[at] ^= 1 << random.below(8);
            "a bit flipped"
        }
        3 => {
            bytes[at] = *random.pick(&[0, 1, 2, 3, 4, 0x7f, 0x80, 0xff]);
            "a byte set"
        }
        4 => {
            bytes.remove(at);
            "a byte dropped"
        }
        _ => {
            bytes.insert(at, random.next() as u8);
            "a byte put in"
        }
    }
}

/// One change to the order or number of the packets.
fn shuffle(bytes: &mut Vec<u8>, others: &[u8], shape: Shape, random: &mut Random) -> &'static str {
    let split = |bytes: &[u8]| -> Vec<Vec<u8>> {
        packets(bytes, shape).map_or_else(
            |_| vec![bytes.to_vec()],
            |packets| packets.iter().map(|packet| packet.whole.to_vec()).collect(),
        )
    };
    let mut parts = split(bytes);
    let at = random.below(parts.len());
    let done = match random.below(5) {
        0 => {
            parts.remove(at);
            "a packet dropped"
        }
        1 => {
            let part = parts[at].clone();
            let to = random.below(parts.len() + 1);
            parts.insert(to, part);
            "a packet doubled"
        }
        2 => {
            let other = random.below(parts.len());
            parts.swap(at, other);
            "packets swapped"
        }
        3 => {
            let part = random.pick(&split(others)).clone();
            let to = random.below(parts.len() + 1);
            parts.insert(to, part);
            "a packet of another put in"
        }
        _ => {
            bend(&mut parts[at], random);
            "a packet bent"
        }
    };
    *bytes = parts.concat();
    done
}

/// Another spelling of the same, or of nearly the same.
fn respell(bytes: &mut Vec<u8>, shape: Shape, random: &mut Random) -> &'static str {
    let plain = binary(bytes, shape).map_or_else(|_| bytes.clone(), |plain| plain.into_owned());
    let text = armor(&plain, shape);
    let (text, done) = match random.below(10) {
        0 => (text, "armored"),
        1 => (text.replace('\n', "\r\n"), "armored with CRLF"),
        2 => (text.replacen("\n\n", "\nComment: x\nVersion: 1\n\n", 1), "armored with headers"),
        3 => (format!("\n\n{text}\n"), "armored with blank lines"),
        4 => (format!("hello\n{text}"), "armored after text"),
        5 => (format!("{text}{text}"), "armored twice"),
        6 => (
            text.lines().filter(|line| !line.starts_with('=')).map(|line| format!("{line}\n")).collect(),
            "armored without a checksum",
        ),
        7 => (text.replace("\n=", "\n=A"), "armored with a bent checksum"),
        8 => {
            let mut bytes = text.into_bytes();
            bend(&mut bytes, random);
            (String::from_utf8_lossy(&bytes).into_owned(), "armored and bent")
        }
        _ => {
            *bytes = plain;
            return "in binary";
        }
    };
    *bytes = text.into_bytes();
    done
}

fn mutate(seeds: &[Case], random: &mut Random) -> Case {
    let mut case = random.pick(seeds).clone();
    let other = random.pick(seeds).clone();
    let plain = |bytes: &[u8], shape| {
        binary(bytes, shape).map_or_else(|_| bytes.to_vec(), |plain| plain.into_owned())
    };
    let done = match random.below(10) {
        0 => format!("message: {}", bend(&mut case.message, random)),
        1 | 2 => {
            case.signature = plain(&case.signature, SIGNATURE);
            format!("signature: {}", bend(&mut case.signature, random))
        }
        3 | 4 => {
            case.certificate = plain(&case.certificate, CERTIFICATE);
            format!("certificate: {}", bend(&mut case.certificate, random))
        }
        5 => {
            case.certificate = plain(&case.certificate, CERTIFICATE);
            let others = plain(&other.certificate, CERTIFICATE);
            format!("certificate: {}", shuffle(&mut case.certificate, &others, CERTIFICATE, random))
        }
        6 => {
            case.signature = plain(&case.signature, SIGNATURE);
            let others = plain(&other.signature, SIGNATURE);
            format!("signature: {}", shuffle(&mut case.signature, &others, SIGNATURE, random))
        }
        7 => format!("signature: {}", respell(&mut case.signature, SIGNATURE, random)),
        8 => format!("certificate: {}", respell(&mut case.certificate, CERTIFICATE, random)),
        _ => {
            case.certificate = other.certificate;
            format!("certificate: that of {}", other.name)
        }
    };
    case.name = format!("{} / {done}", case.name);
    case
}

#[test]
fn nothing_is_accepted_that_sqv_refuses() {
    if !gnupg::has("sqv") {
        return;
    }
    let number = |name: &str, otherwise: u64| {
        std::env::var(name).ok().map_or(otherwise, |text| text.parse().expect("a number"))
    };
    let now = SystemClock.now();
    let seconds = u32::try_from(now.as_unix()).unwrap();
    let mut seeds: Vec<Case> =
        forge::cases(seconds).into_iter().chain(forge::rsa_cases(seconds)).map(|(case, _)| case).collect();
    if gnupg::has("gpg") {
        seeds.extend(gnupg::cases(&Gpg::new(), seconds));
    }
    let mut random = Random(number("DISTEDGE_SEED", 0x6469_7374_6564_6765));
    let mut cases = seeds.clone();
    // Cases that stand are worth more: a change to a case that fails anyway shows little.
    let good: Vec<Case> =
        seeds.iter().filter(|case| judge(case, &open_acceptance(now)).is_ok()).cloned().collect();
    for i in 0..number("DISTEDGE_CASES", 1_500) {
        cases.push(mutate(if i % 3 == 0 { &seeds } else { &good }, &mut random));
    }

    let next = AtomicUsize::new(0);
    let verdicts = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let folder = tempfile::tempdir().unwrap();
                while let Some(case) = cases.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let ours = judge(case, &open_acceptance(now));
                    let theirs = gnupg::sqv_accepts(folder.path(), case);
                    verdicts.lock().unwrap().push((case, ours, theirs));
                }
            });
        }
    });

    let verdicts = verdicts.into_inner().unwrap();
    let count = |ours: bool, theirs: bool| {
        verdicts.iter().filter(|(_, a, b)| a.is_ok() == ours && *b == theirs).count()
    };
    println!(
        "{} cases: both accept {}, both refuse {}, only sqv accepts {}, only we accept {}",
        verdicts.len(),
        count(true, true),
        count(false, false),
        count(false, true),
        count(true, false),
    );
    if std::env::var_os("DISTEDGE_SHOW").is_some() {
        for (case, ours, _) in verdicts.iter().filter(|(_, ours, theirs)| ours.is_err() && *theirs) {
            println!("only sqv: {}: {}", case.name, ours.as_ref().unwrap_err());
        }
    }
    let looser: Vec<&Case> =
        verdicts.iter().filter(|(_, ours, theirs)| ours.is_ok() && !theirs).map(|(case, ..)| *case).collect();
    // Keys are new in every run: what failed has to be kept to be looked at.
    let kept = std::env::temp_dir().join("distedge-openpgp-looser");
    for (i, case) in looser.iter().enumerate() {
        let folder = kept.join(i.to_string());
        std::fs::create_dir_all(&folder).unwrap();
        gnupg::sqv_accepts(&folder, case);
    }
    let looser: Vec<&str> = looser.iter().map(|case| case.name.as_str()).collect();
    assert!(looser.is_empty(), "accepted here and refused by sqv, kept in {kept:?}: {looser:#?}");
    assert!(verdicts.len() >= 1_000, "{} cases are too few", verdicts.len());
    assert!(count(true, true) >= 100, "a test in which nothing is accepted shows nothing");
}
