//! One golden case for each rule.

use super::language::{check, run};
use crate::heap::Amount;
use crate::target::MemorySample;
use memfrag_common::Function;

#[test]
fn allocations_and_frees() {
    check(
        "malloc a0 32
         calloc b0 64
         memalign c0 128
         new d0 8
         free b0",
        "10 a 4 f 1 + 232 - 64 peak 4/232@4 [a0:32@1.10 c0:128@3.10 d0:8@4.10]",
    );
}

#[test]
fn failed_calls_count_apart() {
    check(
        "malloc a0 1
         malloc 0 99
         begin a0 500
         end 0 500
         begin 0 500
         end 0 500",
        "10 a 1 + 1 failed 3 peak 1/1@1 [a0:1@1.10]",
    );
}

#[test]
fn a_free_of_null_is_none() {
    check("free 0", "10 []");
}

#[test]
fn a_free_of_an_unknown_block_counts_but_frees_no_bytes() {
    check("free a0", "10 f 1 unmatched_frees 1 []");
}

#[test]
fn an_allocation_over_a_live_block_closes_it() {
    check(
        "malloc a0 32
         malloc a0 64",
        "10 a 2 + 96 - 32 missed_frees 1 peak 1/64@2 [a0:64@2.10]",
    );
}

#[test]
fn zero_sized_blocks_are_blocks() {
    check(
        "malloc a0 0
         malloc b0 0
         free a0",
        "10 a 2 f 1 [b0:0@2.10]",
    );
}

#[test]
fn realloc_moves() {
    check(
        "malloc a0 32
         begin a0 64
         end b0 64",
        "10 a 1 r 1 + 96 - 32 peak 1/64@3 [b0:64@3.10]",
    );
}

#[test]
fn realloc_in_place() {
    check(
        "malloc a0 32
         begin a0 16
         end a0 16",
        "10 a 1 r 1 + 48 - 32 peak 1/32@1 [a0:16@3.10]",
    );
}

#[test]
fn realloc_under_way_holds_the_old_block_apart() {
    check(
        "malloc a0 32
         begin a0 64",
        "10 a 1 + 32 under_way 32 peak 1/32@1 []",
    );
}

#[test]
fn realloc_that_fails_brings_the_old_block_back() {
    check(
        "malloc a0 32
         begin a0 64
         end 0 64",
        "10 a 1 + 32 failed 1 peak 1/32@1 [a0:32@1.10]",
    );
}

#[test]
fn the_peak_counts_a_block_that_came_back() {
    check(
        "malloc a0 32
         10.10 begin a0 64
         10.11 malloc b0 8
         10.10 end 0 64",
        "10 threads 2 a 2 + 40 failed 1 peak 2/40@4 [a0:32@1.10 b0:8@3.11]",
    );
}

#[test]
fn realloc_to_zero_that_returns_null_frees() {
    check(
        "malloc a0 32
         begin a0 0
         end 0 0",
        "10 a 1 f 1 + 32 - 32 peak 1/32@1 []",
    );
}

#[test]
fn realloc_to_zero_that_returns_a_block_resizes() {
    check(
        "malloc a0 32
         begin a0 0
         end a0 0",
        "10 a 1 r 1 + 32 - 32 peak 1/32@1 [a0:0@3.10]",
    );
}

#[test]
fn realloc_of_null_allocates() {
    check(
        "begin 0 32
         end a0 32",
        "10 a 1 + 32 peak 1/32@2 [a0:32@2.10]",
    );
}

#[test]
fn realloc_of_an_unknown_block() {
    check(
        "begin a0 64
         end b0 64",
        "10 r 1 + 64 unmatched_reallocs 1 peak 1/64@2 [b0:64@2.10]",
    );
}

#[test]
fn end_without_begin_takes_the_block_as_new_and_a_block_at_its_address_as_the_old_one() {
    check(
        "malloc a0 32
         end a0 64
         end b0 8
         end 0 0
         end 0 9",
        "10 a 1 f 1 r 2 + 104 - 32 failed 1 realloc_without_begin 4 peak 2/72@3 [a0:64@2.10 b0:8@3.10]",
    );
}

#[test]
fn begin_without_end_gives_the_old_block_up() {
    check(
        "malloc a0 32
         10.11 malloc b0 16
         10.11 begin b0 17
         10.11 leave",
        "10 threads 2 a 2 + 48 - 16 realloc_without_end 1 peak 2/48@2 [a0:32@1.10]",
    );
}

#[test]
fn an_outer_end_gives_inner_begins_up() {
    check(
        "malloc a0 1
         malloc b0 2
         begin a0 10
         begin b0 20
         end c0 10",
        "10 a 2 r 1 + 13 - 3 realloc_without_end 1 peak 1/10@5 [c0:10@5.10]",
    );
}

#[test]
fn a_signal_handler_reallocates_within_a_realloc() {
    check(
        "malloc a0 1
         malloc b0 2
         begin a0 10
         begin b0 20
         end d0 20
         end c0 10",
        "10 a 2 r 2 + 33 - 3 peak 2/30@6 [c0:10@6.10 d0:20@5.10]",
    );
}

#[test]
fn a_fifth_realloc_at_once_gives_the_first_up() {
    check(
        "malloc a0 1
         begin a0 11
         begin 0 12
         begin 0 13
         begin 0 14
         begin 0 15
         end a0 11",
        "10 a 1 r 1 + 12 - 1 realloc_without_begin 1 realloc_without_end 1 peak 1/11@7 [a0:11@7.10]",
    );
}

#[test]
fn another_thread_gets_the_old_address_while_a_realloc_is_under_way() {
    check(
        "malloc a0 32
         10.10 begin a0 64
         10.11 malloc a0 16
         10.10 end b0 64",
        "10 threads 2 a 2 r 1 + 112 - 32 peak 2/80@4 [a0:16@3.11 b0:64@4.10]",
    );
}

#[test]
fn a_failed_realloc_does_not_clobber_the_new_owner() {
    check(
        "malloc a0 32
         10.10 begin a0 64
         10.11 malloc a0 16
         10.10 end 0 64",
        "10 threads 2 a 2 + 48 - 32 failed 1 restore_conflicts 1 peak 1/32@1 [a0:16@3.11]",
    );
}

#[test]
fn a_gap_marks_the_process_as_damaged_from_then_on() {
    check(
        "malloc a0 1
         gap 5
         gap 7
         malloc b0 1",
        "10 a 2 + 2 gaps 2 lost_events 12 damaged_at 2 peak 2/2@4 [a0:1@1.10 b0:1@4.10]",
    );
}

#[test]
fn a_forked_child_inherits_and_then_goes_its_own_way() {
    check(
        "malloc a0 32
         malloc b0 64
         fork 20
         20 free a0
         20 malloc c0 8
         free b0
         malloc d0 16",
        "10 a 3 f 1 + 112 - 64 peak 2/96@2 [a0:32@1.10 d0:16@7.10]
         20 of 10 a 1 f 1 + 8 - 32 inherited 96 peak 2/96@3 [b0:64@2.10 c0:8@5.20]",
    );
}

#[test]
fn a_grandchild_inherits_from_its_own_parent() {
    check(
        "malloc a0 1
         fork 20
         20 malloc b0 2
         20 fork 30
         20 free a0
         30 free b0",
        "10 a 1 + 1 peak 1/1@1 [a0:1@1.10]
         20 of 10 a 1 f 1 + 2 - 1 inherited 1 peak 2/3@3 [b0:2@3.20]
         30 of 20 f 1 - 2 inherited 3 peak 2/3@4 [a0:1@1.10]",
    );
}

#[test]
fn a_vfork_child_acts_on_its_parents_heap_until_it_execs() {
    check(
        "malloc a0 32
         vfork 20
         20 malloc b0 8
         20 free a0
         20 exec
         20 malloc c0 1
         free b0",
        "10 a 2 f 2 + 40 - 40 peak 2/40@3 []
         20 of 10 execs 1 a 1 + 1 peak 1/1@6 [c0:1@6.20]",
    );
}

#[test]
fn a_vfork_child_acts_on_its_parents_heap_until_it_exits() {
    check(
        "malloc a0 32
         vfork 20
         20 malloc b0 8
         20 exit 0
         malloc c0 1",
        "10 a 3 + 41 peak 3/41@5 [a0:32@1.10 b0:8@3.20 c0:1@5.10]
         20 of 10 ended 4 shares",
    );
}

#[test]
fn a_parent_that_execs_leaves_its_heap_to_a_child_that_shares_it() {
    check(
        "malloc a0 32
         vfork 20
         exec
         malloc b0 1
         20 free a0",
        "10 execs 1 a 1 + 1 peak 1/1@4 [b0:1@4.10]
         20 of 10 a 1 f 1 + 32 - 32 peak 1/32@1 []",
    );
}

#[test]
fn a_clone_with_clone_thread_is_a_thread() {
    check(
        "clone 11
         10.11 malloc a0 1",
        "10 threads 2 a 1 + 1 peak 1/1@2 [a0:1@2.11]",
    );
}

#[test]
fn exec_discards_and_the_sums_go_on() {
    check(
        "malloc a0 32
         10.11 malloc b0 5
         10.11 begin b0 6
         exec
         malloc a0 8
         free b0",
        "10 execs 1 threads 2 a 3 f 1 + 45 - 0 discarded 37 unmatched_frees 1 peak 2/37@2 [a0:8@5.10]"
            .replace(" - 0", "")
            .as_str(),
    );
}

#[test]
fn exit_freezes_the_heap() {
    check(
        "malloc a0 32
         malloc b0 1
         begin b0 2
         exit 9
         10 leave
         10.11 exit 0
         gap 3",
        "10 ended 4 a 2 + 33 realloc_without_end 1 after_exit 2 gaps 1 lost_events 3 damaged_at 7 peak 2/33@2 \
         [a0:32@1.10 b0:1@2.10]",
    );
    assert_eq!(run("exit 9").processes()[0].status(), Some(9));
}

#[test]
fn what_is_kept_of_an_ended_process_is_little() {
    const PROCESSES: u64 = 100;
    let heaps = |last: &str| {
        let one = |pid: u64| {
            let pid = 1000 + pid;
            format!("{pid} malloc 55a0000012a0 40\n{pid} malloc 55a0000012d0 70000\n{pid} free 55a0000012a0\n{last}")
                .replace("PID", &pid.to_string())
        };
        run(&(0..PROCESSES).map(one).collect::<String>())
    };
    let each = |heaps: &crate::heap::Heaps| heaps.memory_bytes() / PROCESSES;
    let (running, ended) = (heaps(""), heaps("PID exit 0\n"));
    // Its tables of pages and blocks, which are 4 KiB and somewhat more than 1 KiB, and its sums.
    assert!(each(&ended) < 10_000, "{} bytes each", each(&ended));
    assert!(each(&running) > each(&ended) + 4_000, "{} and {} bytes each", each(&running), each(&ended));
    let last = ended.processes().last().expect("there are some");
    assert_eq!(ended.heap(last).live(), Amount { blocks: 1, bytes: 70_000 });
    assert_eq!(ended.heap(last).pages().bytes(), running.heap(running.processes().last().unwrap()).pages().bytes());
}

#[test]
fn a_fork_of_an_ended_process_starts_another_one() {
    check(
        "20 malloc a0 32
         20 exit 0
         malloc c0 4
         fork 20
         20 free c0",
        "20 ended 2 a 1 + 32 peak 1/32@1 [a0:32@1.20]
         10 a 1 + 4 peak 1/4@3 [c0:4@3.10]
         20 of 10 f 1 - 4 inherited 4 peak 1/4@4 []",
    );
}

#[test]
fn a_second_fork_of_the_same_id_ends_the_first() {
    check(
        "fork 20
         20 malloc a0 1
         fork 20
         20 malloc b0 1",
        "10 []
         20 of 10 ended 3 a 1 + 1 peak 1/1@2 [a0:1@2.20]
         20 of 10 a 1 + 1 peak 1/1@4 [b0:1@4.20]",
    );
}

#[test]
fn another_start_time_starts_another_process() {
    check(
        "10 info 5
         malloc a0 1
         10 info 5
         10 info 0
         10 info 6
         malloc b0 2",
        "10 ended 5 a 1 + 1 peak 1/1@2 [a0:1@2.10]
         10 a 1 + 2 peak 1/2@6 [b0:2@6.10]",
    );
}

#[test]
fn what_is_learned_before_the_fork_waits_for_it() {
    check(
        "malloc a0 1
         20 info 5
         fork 20
         20 free a0",
        "10 a 1 + 1 peak 1/1@1 [a0:1@1.10]
         20 of 10 f 1 - 1 inherited 1 peak 1/1@3 []",
    );
}

#[test]
fn an_event_of_an_ended_process_that_is_no_tail_starts_another_one() {
    check(
        "exit 0
         malloc a0 1",
        "10 ended 1 []
         10 a 1 + 1 peak 1/1@2 [a0:1@2.10]",
    );
}

#[test]
fn threads_begin_end_and_begin_again_under_the_same_id() {
    let heaps = run("10.11 start
                     10.11 malloc a0 1
                     10.11 leave
                     10.11 start
                     10.11 free a0");
    let threads: Vec<_> =
        heaps.processes()[0].threads().iter().map(|t| (t.tid, t.started, t.ended, t.events)).collect();
    assert_eq!(threads, [(11, 1, Some(3), 4), (11, 4, None, 2)]);
}

#[test]
fn mapping_calls_add_up() {
    check(
        "mmap 1000 4096
         munmap 1000 4096
         unmunmap 1000 4096
         mremap 1000 4096
         remapped 5000 8192
         mremap 5000 8192
         remapped 0 99
         mremap 5000 8192
         remapped 5000 1024
         brk 100",
        "10 mapped 8192 unmapped 7168 brk 256 []",
    );
}

#[test]
fn every_program_of_a_process_has_a_segment_of_its_own() {
    check(
        "brk 100
         brk 180
         exec
         brk 90000
         brk 90010",
        "10 execs 1 brk 589840 grown 144 []",
    );
}

#[test]
fn functions_and_origins_are_counted_apart() {
    let heaps = run("malloc a0 32 111
                     malloc b0 32 111
                     malloc c0 1 222
                     malloc 0 7 222
                     calloc d0 2 222
                     free a0");
    let heap = heaps.heap(&heaps.processes()[0]);
    let malloc = heap.functions().get(Function::Malloc);
    assert_eq!((malloc.calls, malloc.failed, malloc.bytes), (4, 1, 65));
    let free = heap.functions().get(Function::Free);
    assert_eq!((free.calls, free.failed, free.bytes), (1, 0, 32));
    let origins: Vec<_> =
        heap.origins().map(|(_, o, t)| (o.site, o.function, t.allocations, t.requested_bytes)).collect();
    assert_eq!(
        origins,
        [(0x111, Function::Malloc, 2, 64), (0x222, Function::Malloc, 1, 1), (0x222, Function::Calloc, 1, 2)]
    );
    let block = heap.blocks().get(0xb0).expect("live");
    assert_eq!(heap.origin(block.origin).map(|origin| origin.site), Some(0x111));
}

#[test]
fn readings_of_memory_join_the_timeline() {
    let mut heaps = run("malloc a0 32");
    heaps.sample(&MemorySample { time: 2_000_000, pid: 10, rss: 4096, rss_anon: 1024, ..MemorySample::default() });
    heaps.sample(&MemorySample { pid: 11, rss: 1, ..MemorySample::default() });
    let process = &heaps.processes()[0];
    assert_eq!(process.memory().map(|sample| sample.rss), Some(4096));
    let (start, width, points) = heaps.heap(process).timeline();
    assert_eq!((start, width, points.len()), (1, 1 << 20, 2));
    assert_eq!(points[1].live, Amount { blocks: 1, bytes: 32 });
    assert_eq!((points[0].rss, points[1].rss, points[1].rss_anon), (None, Some(4096), Some(1024)));
    assert_eq!(heaps.processes().len(), 1, "a reading alone makes no process");
}
