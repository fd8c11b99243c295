//! An assembler for classic BPF that writes programs from their end to their beginning.
//!
//! BPF jumps only forward, so whoever writes backwards knows every target already. A label is the
//! number of instructions from the labelled one to the end. Conditional jumps reach 255
//! instructions; farther targets get an unconditional jump (32 bits) put in between.

use std::collections::HashMap;

use berth_sys::seccomp::Instruction;

/// A place in the program, counted from its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Label(usize);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Condition {
    Equal,
    Greater,
    GreaterOrEqual,
}

// include/uapi/linux/bpf_common.h
const LD_W_ABS: u16 = 0x20;
const ALU_AND_K: u16 = 0x54;
const JMP_JA: u16 = 0x05;
const JMP_JEQ_K: u16 = 0x15;
const JMP_JGT_K: u16 = 0x25;
const JMP_JGE_K: u16 = 0x35;
const RET_K: u16 = 0x06;

/// Two targets may both need an extra instruction, hence not 255.
const REACH: usize = 253;

#[derive(Debug, Default)]
pub(super) struct Assembler {
    reversed: Vec<Instruction>,
    returns: HashMap<u32, Label>,
}

impl Assembler {
    /// `return value`; one that is near enough is used again.
    pub fn ret(&mut self, value: u32) -> Label {
        match self.returns.get(&value) {
            Some(&label) if self.distance(label) < REACH => label,
            _ => {
                let label = self.push(RET_K, 0, 0, value);
                self.returns.insert(value, label);
                label
            }
        }
    }

    /// Loads the 32-bit word at `offset` of `struct seccomp_data`, and goes on at `then`.
    pub fn load(&mut self, offset: u32, then: Label) -> Label {
        self.fall_through(then);
        self.push(LD_W_ABS, 0, 0, offset)
    }

    /// Masks the loaded word, and goes on at `then`.
    pub fn and(&mut self, mask: u32, then: Label) -> Label {
        self.fall_through(then);
        self.push(ALU_AND_K, 0, 0, mask)
    }

    /// Compares the loaded word with `value`.
    pub fn branch(&mut self, condition: Condition, value: u32, yes: Label, no: Label) -> Label {
        if yes == no {
            return yes;
        }
        let yes = self.near(yes);
        let no = self.near(no);
        let code = match condition {
            Condition::Equal => JMP_JEQ_K,
            Condition::Greater => JMP_JGT_K,
            Condition::GreaterOrEqual => JMP_JGE_K,
        };
        let (jt, jf) = (self.offset(yes), self.offset(no));
        self.push(code, jt, jf, value)
    }

    /// The program, whose first instruction must be the one written last.
    pub fn finish(mut self, entry: Label) -> Vec<Instruction> {
        self.fall_through(entry);
        self.reversed.reverse();
        self.reversed
    }

    fn push(&mut self, code: u16, jt: u8, jf: u8, k: u32) -> Label {
        self.reversed.push(Instruction { code, jt, jf, k });
        Label(self.reversed.len())
    }

    /// How many instructions are between the next one and `label`.
    fn distance(&self, label: Label) -> usize {
        self.reversed.len() - label.0
    }

    fn offset(&self, label: Label) -> u8 {
        u8::try_from(self.distance(label)).expect("near() brought the label into reach")
    }

    fn near(&mut self, label: Label) -> Label {
        if self.distance(label) < REACH {
            label
        } else {
            self.jump(label)
        }
    }

    fn jump(&mut self, label: Label) -> Label {
        let distance = u32::try_from(self.distance(label)).expect("a program has under 4096 lines");
        self.push(JMP_JA, 0, 0, distance)
    }

    fn fall_through(&mut self, label: Label) {
        if self.distance(label) != 0 {
            self.jump(label);
        }
    }
}

/// Runs a program on the words of a `seccomp_data`; for tests.
#[cfg(test)]
pub(super) fn run(program: &[Instruction], words: &[u32; 16]) -> (u32, usize) {
    let (mut a, mut pc, mut steps) = (0, 0, 0);
    loop {
        let instruction = program[pc];
        steps += 1;
        pc += 1;
        let mut jump = |taken: bool| {
            pc += usize::from(if taken {
                instruction.jt
            } else {
                instruction.jf
            })
        };
        match instruction.code {
            LD_W_ABS => a = words[instruction.k as usize / 4],
            ALU_AND_K => a &= instruction.k,
            JMP_JA => pc += instruction.k as usize,
            JMP_JEQ_K => jump(a == instruction.k),
            JMP_JGT_K => jump(a > instruction.k),
            JMP_JGE_K => jump(a >= instruction.k),
            RET_K => return (instruction.k, steps),
            code => panic!("unknown instruction {code:#x}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn far_targets_are_reached() {
        let mut asm = Assembler::default();
        let far = asm.ret(7);
        let mut next = asm.ret(9);
        for value in 0..600 {
            next = asm.branch(Condition::Equal, 10_000 + value, far, next);
        }
        let entry = asm.branch(Condition::Equal, 42, far, next);
        let entry = asm.load(0, entry);
        let program = asm.finish(entry);
        let mut words = [0; 16];
        for (number, expect) in [(42, 7), (10_000, 7), (10_599, 7), (10_600, 9), (0, 9)] {
            words[0] = number;
            assert_eq!(run(&program, &words).0, expect, "{number}");
        }
    }
}
