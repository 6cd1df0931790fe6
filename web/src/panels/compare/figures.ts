// The figures by which a policy and the heap beside it are compared, each with its explanation.

import type { Entry } from "../../explain/glossary";
import type { Modelled, RealHeap } from "../../protocol";

export interface Figure extends Entry {
    kind: "bytes" | "count" | "share";
    /** Null where it is not known. */
    real: (heap: RealHeap) => number | null;
    model: (model: Modelled) => number | null;
}

export const FIGURES: readonly Figure[] = [
    {
        name: "Live", kind: "bytes", real: (one) => one.requested_bytes, model: (one) => one.requested_bytes,
        what: "What live blocks asked for. The same requests give the same bytes, but for blocks older than the trace: the heap counts them with what they can hold, a model does not know them.",
        formula: "sum of requested sizes of live blocks", todo: "",
    },
    {
        name: "Live blocks", kind: "count", real: (one) => one.live_blocks, model: (one) => one.live_blocks,
        what: "Blocks allocated and not yet freed.", formula: "allocations − frees", todo: "",
    },
    {
        name: "Taken by blocks", kind: "bytes", real: (one) => one.taken_bytes, model: (one) => one.taken_bytes,
        what: "What live blocks occupy, headers and rounding included.", formula: "sum of the places of live blocks", todo: "",
    },
    {
        name: "Footprint", kind: "bytes", real: (one) => one.footprint_bytes, model: (one) => one.final_footprint_bytes,
        what: "Memory obtained from the system. Of the real heap: the address ranges in which it lies, as on the map.",
        formula: "bytes obtained − bytes given back", todo: "A policy with a much smaller one would have needed less for the same requests.",
    },
    {
        name: "Peak footprint", kind: "bytes", real: () => null, model: (one) => one.peak_footprint_bytes,
        what: "The most that the policy had obtained at once until now. Of the real heap it is not recorded at each moment.", formula: "largest footprint so far", todo: "",
    },
    {
        name: "Resident", kind: "bytes", real: (one) => one.resident_bytes, model: () => null,
        what: "What of the real heap's ranges was in memory when that was looked at last. A model has no memory.", formula: "resident pages of the ranges", todo: "",
    },
    {
        name: "Resident bound", kind: "bytes", real: (one) => one.resident_bound_bytes, model: (one) => one.resident_bound_bytes,
        what: "The pages on which live blocks lie. Once these are written to, nothing can make the heap smaller than this while they live.",
        formula: "pages that a live block touches × 4096", todo: "Where the real heap has far more than a policy, its survivors are scattered: see Blame.",
    },
    {
        name: "Internal fragmentation", kind: "share", real: (one) => one.internal_fragmentation, model: (one) => one.internal_fragmentation,
        what: "The share of what blocks occupy that nobody asked for: headers, padding, rounding to classes. Not known of a real heap that is not glibc's: how much its blocks occupy beyond what was asked for is its allocator's secret.", formula: "1 − live / taken by blocks", todo: "",
    },
    {
        name: "External fragmentation", kind: "share", real: (one) => one.external_fragmentation, model: (one) => one.external_fragmentation,
        what: "The share of the footprint that no live block occupies: holes, caches, what is free at the end.", formula: "1 − taken by blocks / footprint", todo: "",
    },
    {
        name: "Free pieces", kind: "count", real: (one) => one.holes, model: (one) => one.holes,
        what: "Of the real heap: ranges between blocks. Of a policy: the pieces that it keeps as free, places of a size class each by itself.", formula: "count", todo: "",
    },
    {
        name: "Largest hole", kind: "bytes", real: (one) => one.largest_hole_bytes, model: (one) => one.largest_hole_bytes,
        what: "The largest request that the free memory could serve without obtaining more.", formula: "largest free piece", todo: "",
    },
    {
        name: "Failed requests", kind: "count", real: (one) => one.failed, model: (one) => one.failed,
        what: "Requests that got no block.", formula: "count", todo: "",
    },
    {
        name: "Growths", kind: "count", real: (one) => one.growths, model: (one) => one.growths,
        what: "How often more memory was obtained. Of the real heap: growths of the heap segment, where the capture sees them.", formula: "count", todo: "",
    },
    {
        name: "Avoidable growths", kind: "count", real: (one) => one.avoidable_growths, model: (one) => one.avoidable_growths,
        what: "Growths for a request that all free bytes, taken together, would have held: what fragmentation alone has cost.", formula: "growths with free bytes ≥ request", todo: "",
    },
    {
        name: "Foretold", kind: "share", real: () => null, model: (one) => one.agreement ?? null,
        what: "The share of blocks whose address glibc's model foretold before it looked: how far its other figures can be trusted. Other policies foretell none.", formula: "blocks at the recorded address / blocks placed", todo: "",
    },
];
