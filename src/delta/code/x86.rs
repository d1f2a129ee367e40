//! Where an x86-64 instruction ends and which of its fields names an address.
//!
//! A table of shapes, not a disassembler: a wrong guess costs patch bytes and nothing else, so
//! whatever is not an instruction is taken for one byte.

/// Longest instruction, in bytes.
pub(super) const MAX: usize = 15;

/// One instruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Instruction {
    /// Bytes, at least 1.
    pub(super) length: u8,
    /// Where in it a 32-bit displacement relative to its end lies; 0 if there is none.
    pub(super) field: u8,
}

/// What the next byte of an unfinished instruction is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    /// A prefix or an opcode byte.
    Opcode,
    /// The addressing byte.
    ModRm,
    /// The scaled-index byte.
    Sib,
    /// The nth byte of a displacement; the flag says that it is relative to the program counter.
    Displacement(u8, bool),
    /// The nth byte of an immediate value.
    Immediate(u8),
    /// The nth byte of a branch distance.
    Branch(u8),
}

/// The outcome of reading the beginning of an instruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Parsed {
    /// All of it is there.
    Whole(Instruction),
    /// More bytes are needed; the next one is this.
    Unfinished(Part),
}

const M: u16 = 1; // ModRM follows
const B: u16 = 2; // imm8
const Z: u16 = 4; // imm16 or imm32
const J: u16 = 8; // rel32
const W: u16 = 16; // imm16
const X: u16 = 32; // no instruction
const P: u16 = 64; // legacy prefix
const O: u16 = 128; // 64-bit address
const V: u16 = 256; // immediate as wide as the operand
const G: u16 = 512; // immediate only if ModRM.reg is 0 or 1
const S: u16 = 1024; // rel8

const ONE: [u16; 256] = one();
const TWO: [u16; 256] = two();

const fn fill(mut table: [u16; 256], from: usize, to: usize, value: u16) -> [u16; 256] {
    let mut at = from;
    while at <= to {
        table[at] = value;
        at += 1;
    }
    table
}

const fn one() -> [u16; 256] {
    let mut t = [0u16; 256];
    let mut row = 0;
    while row < 0x40 {
        t = fill(t, row, row + 3, M);
        t[row + 4] = B;
        t[row + 5] = Z;
        t[row + 6] = X;
        t[row + 7] = X;
        row += 8;
    }
    t[0x0f] = 0;
    t[0x26] = P;
    t[0x2e] = P;
    t[0x36] = P;
    t[0x3e] = P;
    t = fill(t, 0x60, 0x62, X);
    t[0x63] = M;
    t = fill(t, 0x64, 0x67, P);
    t[0x68] = Z;
    t[0x69] = M | Z;
    t[0x6a] = B;
    t[0x6b] = M | B;
    t = fill(t, 0x70, 0x7f, S);
    t[0x80] = M | B;
    t[0x81] = M | Z;
    t[0x82] = X;
    t[0x83] = M | B;
    t = fill(t, 0x84, 0x8f, M);
    t[0x9a] = X;
    t = fill(t, 0xa0, 0xa3, O);
    t[0xa8] = B;
    t[0xa9] = Z;
    t = fill(t, 0xb0, 0xb7, B);
    t = fill(t, 0xb8, 0xbf, V);
    t = fill(t, 0xc0, 0xc1, M | B);
    t[0xc2] = W;
    t = fill(t, 0xc4, 0xc5, X);
    t[0xc6] = M | B;
    t[0xc7] = M | Z;
    t[0xc8] = W | B;
    t[0xca] = W;
    t[0xcd] = B;
    t[0xce] = X;
    t = fill(t, 0xd0, 0xd3, M);
    t = fill(t, 0xd4, 0xd6, X);
    t = fill(t, 0xd8, 0xdf, M);
    t = fill(t, 0xe0, 0xe3, S);
    t = fill(t, 0xe4, 0xe7, B);
    t = fill(t, 0xe8, 0xe9, J);
    t[0xea] = X;
    t[0xeb] = S;
    t[0xf0] = P;
    t[0xf2] = P;
    t[0xf3] = P;
    t[0xf6] = M | G | B;
    t[0xf7] = M | G | Z;
    t = fill(t, 0xfe, 0xff, M);
    t
}

const fn two() -> [u16; 256] {
    let mut t = [M; 256];
    t = fill(t, 0x04, 0x0c, 0);
    t[0x0a] = X;
    t[0x0d] = M;
    t[0x0e] = 0;
    t[0x0f] = M | B;
    t = fill(t, 0x24, 0x27, X);
    t = fill(t, 0x30, 0x37, 0);
    t[0x39] = X;
    t = fill(t, 0x3b, 0x3f, X);
    t = fill(t, 0x70, 0x73, M | B);
    t[0x77] = 0;
    t = fill(t, 0x80, 0x8f, J);
    t = fill(t, 0xa0, 0xa2, 0);
    t[0xa4] = M | B;
    t = fill(t, 0xa8, 0xaa, 0);
    t[0xac] = M | B;
    t[0xba] = M | B;
    t[0xc2] = M | B;
    t = fill(t, 0xc4, 0xc6, M | B);
    t = fill(t, 0xc8, 0xcf, 0);
    t
}

/// Reads one instruction at the beginning of `code`.
#[inline]
pub(super) fn parse(code: &[u8]) -> Parsed {
    let mut at = 0usize;
    let mut narrow = false;
    let mut wide = false;
    let invalid = Parsed::Whole(Instruction { length: 1, field: 0 });
    let byte;
    let mut shape;
    loop {
        if at >= MAX {
            return invalid;
        }
        let Some(&next) = code.get(at) else { return Parsed::Unfinished(Part::Opcode) };
        at += 1;
        if (0x40..0x50).contains(&next) {
            wide = next & 8 != 0;
            let Some(&opcode) = code.get(at) else { return Parsed::Unfinished(Part::Opcode) };
            at += 1;
            byte = opcode;
            shape = ONE[usize::from(opcode)];
            if shape & P != 0 {
                return invalid;
            }
            break;
        }
        shape = ONE[usize::from(next)];
        if shape & P != 0 {
            narrow |= next == 0x66;
            continue;
        }
        byte = next;
        break;
    }
    if shape & X != 0 {
        // VEX and EVEX: the map and the opcode are inside.
        let skip = match byte {
            0xc5 => 1,
            0xc4 => 2,
            0x62 => 3,
            _ => return invalid,
        };
        let Some(&first) = code.get(at) else { return Parsed::Unfinished(Part::Opcode) };
        let map = match byte {
            0xc5 => 1,
            0xc4 => first & 0x1f,
            _ => first & 7,
        };
        at += skip;
        let Some(&opcode) = code.get(at) else { return Parsed::Unfinished(Part::Opcode) };
        at += 1;
        shape = match map {
            1 if byte == 0x62 => (TWO[usize::from(opcode)] & B) | M,
            1 => TWO[usize::from(opcode)] & (B | M),
            2 | 5 | 6 => M,
            3 => M | B,
            _ => return invalid,
        };
    } else if byte == 0x0f {
        let Some(&opcode) = code.get(at) else { return Parsed::Unfinished(Part::Opcode) };
        at += 1;
        shape = match opcode {
            0x38 | 0x3a => {
                if code.get(at).is_none() {
                    return Parsed::Unfinished(Part::Opcode);
                }
                at += 1;
                if opcode == 0x38 { M } else { M | B }
            }
            _ => TWO[usize::from(opcode)],
        };
        if shape & X != 0 {
            return invalid;
        }
    }
    let mut field = 0usize;
    if shape & M != 0 {
        let Some(&modrm) = code.get(at) else { return Parsed::Unfinished(Part::ModRm) };
        at += 1;
        let mode = modrm >> 6;
        let mut displacement = [0usize, 1, 4, 0][usize::from(mode)];
        let mut relative = false;
        if mode != 3 {
            if modrm & 7 == 4 {
                let Some(&sib) = code.get(at) else { return Parsed::Unfinished(Part::Sib) };
                at += 1;
                if mode == 0 && sib & 7 == 5 {
                    displacement = 4;
                }
            } else if mode == 0 && modrm & 7 == 5 {
                displacement = 4;
                relative = true;
                field = at;
            }
        }
        if code.len() < at + displacement {
            return Parsed::Unfinished(Part::Displacement((code.len() - at) as u8, relative));
        }
        at += displacement;
        if shape & G != 0 && modrm & 0x38 > 8 {
            shape &= !(B | Z);
        }
    }
    let mut immediate = usize::from(shape & B != 0) + 2 * usize::from(shape & W != 0);
    if shape & Z != 0 {
        immediate += if narrow && !wide { 2 } else { 4 };
    }
    if shape & V != 0 {
        immediate += if wide {
            8
        } else if narrow {
            2
        } else {
            4
        };
    }
    if shape & O != 0 {
        immediate += 8;
    }
    if shape & (J | S) != 0 {
        let distance = if shape & J != 0 { 4 } else { 1 };
        if code.len() < at + distance {
            return Parsed::Unfinished(Part::Branch((code.len() - at) as u8));
        }
        if distance == 4 {
            field = at;
        }
        at += distance;
    }
    if code.len() < at + immediate {
        return Parsed::Unfinished(Part::Immediate((code.len() - at) as u8));
    }
    at += immediate;
    if at > MAX {
        return invalid;
    }
    Parsed::Whole(Instruction { length: at as u8, field: field as u8 })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whole(code: &[u8]) -> (u8, u8) {
        match parse(code) {
            Parsed::Whole(instruction) => (instruction.length, instruction.field),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn lengths_and_fields() {
        let cases: &[(&[u8], u8, u8)] = &[
            (&[0x55], 1, 0),                                            // push rbp
            (&[0x48, 0x89, 0xe5], 3, 0),                                // mov rbp, rsp
            (&[0xe8, 1, 2, 3, 4], 5, 1),                                // call
            (&[0x0f, 0x84, 1, 2, 3, 4], 6, 2),                          // je
            (&[0x48, 0x8d, 0x05, 1, 2, 3, 4], 7, 3),                    // lea rax, [rip+x]
            (&[0x48, 0x8b, 0x84, 0x24, 1, 2, 3, 4], 8, 0),              // mov rax, [rsp+x]
            (&[0xc7, 0x05, 1, 2, 3, 4, 5, 6, 7, 8], 10, 2),             // mov dword [rip+x], imm32
            (&[0x66, 0xc7, 0x05, 1, 2, 3, 4, 5, 6], 9, 3),              // mov word [rip+x], imm16
            (&[0x80, 0x3d, 1, 2, 3, 4, 5], 7, 2),                       // cmp byte [rip+x], imm8
            (&[0x48, 0xb8, 1, 2, 3, 4, 5, 6, 7, 8], 10, 0),             // movabs
            (&[0xf6, 0xc1, 0x01], 3, 0),                                // test cl, 1
            (&[0xf7, 0xd8], 2, 0),                                      // neg eax
            (&[0x0f, 0x1f, 0x84, 0, 0, 0, 0, 0], 8, 0),                 // nop
            (&[0x66, 0x2e, 0x0f, 0x1f, 0x84, 0, 0, 0, 0, 0], 10, 0),    // nop
            (&[0xc5, 0xf9, 0x6f, 0x05, 1, 2, 3, 4], 8, 4),              // vmovdqa xmm0, [rip+x]
            (&[0xc4, 0xe3, 0x7d, 0x39, 0xc1, 0x01], 6, 0),              // vextracti128
            (&[0x62, 0xf1, 0x7c, 0x48, 0x10, 0x05, 1, 2, 3, 4], 10, 6), // vmovups zmm0, [rip+x]
            (&[0x66, 0x0f, 0x3a, 0x0f, 0xc1, 0x08], 6, 0),              // palignr
            (&[0xeb, 0x10], 2, 0),                                      // jmp short
            (&[0xf3, 0x0f, 0x1e, 0xfa], 4, 0),                          // endbr64
            (&[0x06], 1, 0),
        ];
        for (code, length, field) in cases {
            assert_eq!(whole(code), (*length, *field), "{code:02x?}");
            for cut in 0..code.len() {
                assert!(matches!(parse(&code[..cut]), Parsed::Unfinished(_)), "{code:02x?} cut at {cut}");
            }
        }
    }

    #[test]
    fn parts_of_an_unfinished_instruction() {
        let code = [0xc7, 0x84, 0x24, 1, 2, 3, 4, 5, 6, 7, 8];
        let parts: Vec<Part> = (0..code.len())
            .map(|cut| match parse(&code[..cut]) {
                Parsed::Unfinished(part) => part,
                Parsed::Whole(_) => panic!(),
            })
            .collect();
        assert_eq!(parts[..4], [Part::Opcode, Part::ModRm, Part::Sib, Part::Displacement(0, false)]);
        assert_eq!(parts[7..], [0, 1, 2, 3].map(Part::Immediate));
    }

    #[test]
    fn endless_prefixes_are_no_instruction() {
        assert_eq!(whole(&[0x66; 20]), (1, 0));
    }
}
