//! Synthetic functions that the picker must take or refuse.

use super::oracle::check;
use super::*;
use crate::probes::table::{TABLE, rank};
use proptest::prelude::*;

const ADDRESS: u64 = 0x40_1000;

fn site<'a>(symbol: &str, code: &'a [u8]) -> Site<'a> {
    let entry = &TABLE[rank(symbol).expect("a symbol of the table")];
    Site {
        code,
        address: ADDRESS,
        arguments: entry.arguments,
        null_is_nothing: entry.shape == crate::probes::Shape::Free,
        standard_registers: true,
        incoming: &[],
    }
}

/// Offset, class and whether null passes by.
type Placed = (u32, Class, bool);

fn placed(site: &Site<'_>) -> Placed {
    let placement = place(site).expect("the entry can carry a probe");
    check(site, &placement).expect("the rules hold");
    (placement.offset, placement.class, placement.skips_null)
}

const EMULATED: Class = Class::Emulated;
const STEPPED: Class = Class::SingleStepped;

#[test]
fn the_nearest_emulated_instruction_is_taken() {
    let cases: &[(&str, &[u8], Placed)] = &[
        ("push", &[0x55, 0xc3], (0, EMULATED, false)),
        ("push r12", &[0x41, 0x54, 0xc3], (0, EMULATED, false)),
        ("nop", &[0x90, 0xc3], (0, EMULATED, false)),
        ("endbr64; push", &[0xf3, 0x0f, 0x1e, 0xfa, 0x55, 0xc3], (4, EMULATED, false)),
        ("endbr64; jmp elsewhere", &[0xf3, 0x0f, 0x1e, 0xfa, 0xe9, 0, 1, 0, 0], (4, EMULATED, false)),
        ("mov rax,rdi; push", &[0x48, 0x89, 0xf8, 0x55, 0xc3], (3, EMULATED, false)),
        ("red zone: mov [rsp-8],rdi; push", &[0x48, 0x89, 0x7c, 0x24, 0xf8, 0x55, 0xc3], (5, EMULATED, false)),
    ];
    for (name, code, expected) in cases {
        assert_eq!(placed(&site("malloc", code)), *expected, "{name}");
    }
}

/// Builds for processors with control-flow enforcement begin every function with `endbr64`, and some keep frame
/// pointers: the shapes of Ubuntu's and Fedora's C libraries.
#[test]
fn builds_with_control_flow_enforcement_need_no_single_steps() {
    // endbr64; push rbp; mov rbp,rsp; pop rbp; ret
    let malloc = [0xf3, 0x0f, 0x1e, 0xfa, 0x55, 0x48, 0x89, 0xe5, 0x5d, 0xc3];
    assert_eq!(placed(&site("malloc", &malloc)), (4, EMULATED, false));
    // endbr64; test rdi,rdi; je to the last ret; push rbp; mov rbp,rsp; pop rbp; ret; ret
    let free = [
        &[0xf3, 0x0f, 0x1e, 0xfa, 0x48, 0x85, 0xff, 0x0f, 0x84, 6, 0, 0, 0][..],
        &[0x55, 0x48, 0x89, 0xe5, 0x5d, 0xc3, 0xc3],
    ];
    assert_eq!(placed(&site("free", &free.concat())), (13, EMULATED, true));
    // endbr64; mov rax,rsi; mul rdx; jo to the last two; ret; xor eax,eax; ret: the count is gone before the branch.
    let reallocarray =
        [&[0xf3, 0x0f, 0x1e, 0xfa, 0x48, 0x89, 0xf0, 0x48, 0xf7, 0xe2][..], &[0x70, 1, 0xc3, 0x31, 0xc0, 0xc3]];
    assert_eq!(placed(&site("reallocarray", &reallocarray.concat())), (0, STEPPED, false));
}

#[test]
fn what_would_lie_is_refused() {
    let cases: &[(&str, &[u8])] = &[
        ("ret", &[0xc3]),
        ("a nop of several bytes is not emulated everywhere", &[0x66, 0x90, 0xc3]),
        ("pause", &[0xf3, 0x90, 0xc3]),
        ("call, then push", &[0xe8, 0, 1, 0, 0, 0x55, 0xc3]),
        ("xor edi,edi; push: the size is gone", &[0x31, 0xff, 0x55, 0xc3]),
        ("mov dil,1; push: part of the size is gone", &[0x40, 0xb7, 1, 0x55, 0xc3]),
        ("mov rsi,rdi; mov rdi,rax; push: the size has moved", &[0x48, 0x89, 0xfe, 0x48, 0x89, 0xc7, 0x55, 0xc3]),
        ("sub rsp,8; push", &[0x48, 0x83, 0xec, 8, 0x55, 0xc3]),
        ("pop rax; push rax", &[0x58, 0x50, 0xc3]),
        ("mov [rsp],rax; push: the return address is gone", &[0x48, 0x89, 0x04, 0x24, 0x55, 0xc3]),
        ("endbr64; push; jmp to the push", &[0xf3, 0x0f, 0x1e, 0xfa, 0x55, 0xeb, 0xfd]),
        ("endbr64; dec rdi would do; jne back to it", &[0xf3, 0x0f, 0x1e, 0xfa, 0x48, 0xff, 0xce, 0x75, 0xfb, 0xc3]),
        ("test eax,eax; push; jmp through a table", &[0x85, 0xc0, 0x55, 0xff, 0xe0]),
        ("endbr64; push; notrack jmp", &[0xf3, 0x0f, 0x1e, 0xfa, 0x55, 0x3e, 0xff, 0xe0]),
        ("test eax,eax; push; then no instruction", &[0x85, 0xc0, 0x55, 0x06]),
        ("syscall; push", &[0x0f, 0x05, 0x55, 0xc3]),
    ];
    for (name, code) in cases {
        assert_eq!(placed(&site("malloc", code)), (0, STEPPED, false), "{name}");
    }
    let far = [&[0x48, 0x89, 0xf8].repeat(22)[..], &[0x55, 0xc3]].concat();
    assert_eq!(placed(&site("malloc", &far)), (0, STEPPED, false), "66 bytes from the entry");
}

#[test]
fn jumps_that_cannot_come_back_do_no_harm() {
    let marked = [0xf3, 0x0f, 0x1e, 0xfa, 0x55, 0xff, 0xe0];
    assert_eq!(placed(&site("malloc", &marked)), (4, EMULATED, false), "tracked jumps land on marks");
    let tail = [0x85, 0xc0, 0x55, 0x5d, 0xff, 0xe0];
    assert_eq!(placed(&site("malloc", &tail)), (2, EMULATED, false), "the frame is gone");
    let slot = [0x85, 0xc0, 0x55, 0xff, 0x25, 0, 1, 0, 0];
    assert_eq!(placed(&site("malloc", &slot)), (2, EMULATED, false), "a slot leads to another function");
}

#[test]
fn code_elsewhere_counts() {
    let code = [0xf3, 0x0f, 0x1e, 0xfa, 0x55, 0xc3];
    let at = ADDRESS + 0x1000;
    for (opcode, width) in [(&[0xe9u8][..], 5), (&[0x0f, 0x84], 6)] {
        for (target, expected) in [(ADDRESS + 4, 0), (ADDRESS, 4), (ADDRESS + 5, 4)] {
            let distance = (target.wrapping_sub(at + width)) as u32;
            let cold = [opcode, &distance.to_le_bytes()].concat();
            let incoming = branches_into(at, &cold, &[ADDRESS]);
            assert_eq!(incoming.len(), usize::from(target != ADDRESS));
            let site = Site { incoming: &incoming, ..site("malloc", &code) };
            assert_eq!(placed(&site).0, expected, "{opcode:x?} to {target:#x}");
        }
    }
}

#[test]
fn bytes_that_look_like_a_branch_within_another_instruction_do_not_count() {
    let code = [0xf3, 0x0f, 0x1e, 0xfa, 0x55, 0xc3];
    let at = ADDRESS + 0x1000;
    // mov eax,imm32 whose value begins with the opcode of jmp; the distance ends in the next instructions.
    let distance = ((ADDRESS + 4).wrapping_sub(at + 6)) as u32;
    let mut other = vec![0xb8, 0xe9];
    other.extend(distance.to_le_bytes());
    other.extend([0x90; 8]);
    assert_eq!(branches_into(at, &other, &[ADDRESS]), []);
    // Read from its second byte it is one.
    let branch = Branch { from: at + 1, target: ADDRESS + 4 };
    assert_eq!(branches_into(at + 1, &other[1..], &[ADDRESS]), [branch]);
    assert_eq!(placed(&Site { incoming: &[branch], ..site("malloc", &code) }).0, 0);
}

#[test]
fn the_test_for_null_may_be_passed() {
    let simple = [0x48, 0x85, 0xff, 0x74, 1, 0x55, 0xc3];
    assert_eq!(placed(&site("free", &simple)), (5, EMULATED, true));
    // For realloc a null block is a call like any other.
    assert_eq!(placed(&site("realloc", &simple)), (3, EMULATED, false));
    let cases: &[(&str, &[u8])] = &[
        ("another register is tested", &[0x48, 0x85, 0xf6, 0x74, 1, 0x55, 0xc3]),
        ("only half of it is tested", &[0x85, 0xff, 0x74, 1, 0x55, 0xc3]),
        ("jne", &[0x48, 0x85, 0xff, 0x75, 1, 0x55, 0xc3]),
        ("the flags are others by then", &[0x48, 0x85, 0xff, 0x85, 0xc0, 0x74, 1, 0x55, 0xc3]),
        ("the block is gone behind it", &[0x48, 0x85, 0xff, 0x74, 4, 0x31, 0xff, 0x55, 0xc3, 0xc3]),
        ("the stack moves behind it", &[0x48, 0x85, 0xff, 0x74, 6, 0x48, 0x83, 0xec, 8, 0x55, 0xc3]),
        ("null goes to the push as well", &[0x48, 0x85, 0xff, 0x74, 0, 0x55, 0xc3]),
    ];
    for (name, code) in cases {
        let (_, class, skips_null) = placed(&site("free", code));
        assert_eq!((class, skips_null), (EMULATED, false), "{name}");
    }
}

#[test]
fn moved_arguments_are_followed_where_that_is_wanted() {
    // mov rsi,rdi; mov rdi,[rax]; ja
    let code = [0x48, 0x89, 0xfe, 0x48, 0x8b, 0x38, 0x77, 1, 0xc3, 0xc3];
    assert_eq!(placed(&site("malloc", &code)), (0, STEPPED, false));
    let site = Site { standard_registers: false, ..site("malloc", &code) };
    let placement = place(&site).expect("it can be placed");
    check(&site, &placement).expect("the rules hold");
    assert_eq!((placement.offset, placement.arguments), (6, Arguments::Size(Register::Rsi)));
}

#[test]
fn what_the_kernel_refuses_is_an_error() {
    assert_eq!(place(&site("malloc", &[])), Err(Unplaceable::Empty));
    assert_eq!(place(&site("malloc", &[0x06])), Err(Unplaceable::Invalid));
    for code in [&[0xf0, 0x48, 0xff, 0x07, 0xc3][..], &[0x2e, 0x66, 0x90], &[0x66, 0xe9, 0, 0, 0, 0], &[0xcc]] {
        assert_eq!(place(&site("malloc", code)), Err(Unplaceable::Refused), "{code:x?}");
    }
}

/// Pieces of code that make interesting functions likelier than plain random bytes do.
fn piece() -> impl Strategy<Value = Vec<u8>> {
    let known: Vec<&'static [u8]> = vec![
        &[0xf3, 0x0f, 0x1e, 0xfa],
        &[0x55],
        &[0x41, 0x54],
        &[0x90],
        &[0x5d],
        &[0xc3],
        &[0x48, 0x85, 0xff],
        &[0x85, 0xc0],
        &[0x48, 0x89, 0xfe],
        &[0x48, 0x89, 0xf7],
        &[0x48, 0x89, 0xf8],
        &[0x31, 0xff],
        &[0x48, 0x83, 0xec, 8],
        &[0x48, 0x89, 0x7c, 0x24, 0xf8],
        &[0x48, 0x89, 0x04, 0x24],
        &[0xff, 0xe0],
        &[0x3e, 0xff, 0xe0],
    ];
    prop_oneof![
        8 => proptest::sample::select(known).prop_map(<[u8]>::to_vec),
        3 => (0x70u8..0x80, -12i8..12).prop_map(|(opcode, distance)| vec![opcode, distance.cast_unsigned()]),
        2 => (-12i8..12).prop_map(|distance| vec![0xeb, distance.cast_unsigned()]),
        1 => proptest::collection::vec(any::<u8>(), 1..6),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn every_placement_obeys_the_rules(
        pieces in proptest::collection::vec(piece(), 0..14),
        symbol in proptest::sample::select(TABLE).prop_map(|entry| entry.symbol),
        standard_registers: bool,
    ) {
        let code = pieces.concat();
        let site = Site { standard_registers, ..site(symbol, &code) };
        if let Ok(placement) = place(&site) {
            prop_assert_eq!(check(&site, &placement), Ok(()), "{:x?} {:?}", code, placement);
        }
    }

    #[test]
    fn any_bytes_are_placed_without_panic(
        code in proptest::collection::vec(any::<u8>(), 0..100),
        other in proptest::collection::vec(any::<u8>(), 0..100),
        address: u64, elsewhere: u64, standard_registers: bool,
    ) {
        let incoming = branches_into(elsewhere, &other, &[address, elsewhere]);
        let site = Site { address, incoming: &incoming, standard_registers, ..site("free", &code) };
        let _ = place(&site);
    }
}
