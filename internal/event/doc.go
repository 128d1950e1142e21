// Package event holds the closed set of facts that a run emits. The engine
// and every report meet only here: internal/run makes events, a Sink takes
// them, and each format is a fold over the same sequence.
//
// An event is a plain record: ids, numbers, times. It holds no verbs, no
// colours and no widths, and never changes once emitted. The times are set by
// the engine, so a renderer needs no clock to be tested.
//
// Contract of the sequence: RunStarted comes first and RunFinished last, each
// once, whatever happens in between. Every Kustomization that was announced
// by a NodeFound ends in exactly one NodeFinished. Events of one
// Kustomization come in the order in which things happened; those of
// different ones may interleave.
package event
