// Package health says when what a Kustomization applied is ready, and why it is not.
//
// [Select] chooses what is waited for, as the wait mode and the spec say (S6.1 to S6.6). [Hub.Wait] watches those objects until
// all are Current, one has Failed, the time is up or the context ends. A [Hub] is what all waits of a run share; hub.go says which
// set of objects serves which wait, set.go what is known of a set and from when on it counts, watch.go how a set is followed.
// [Diagnose] reads what stands behind an object that did not become ready: its pods, their containers' states, warning events
// and last log lines.
//
// Contract:
//
//   - Nothing is polled. Each set of objects is listed once, consistently, and then watched; a gate opens with the event that
//     makes the last object Current. A watch that breaks, expires or was never possible is begun anew with a growing pause,
//     never given up.
//   - An object counts only at or after the resource version that was written, or read and found right. Where that is not known,
//     only what a list says that began after the wait did. So no gate opens on what was before the apply.
//   - What is learned is told to each wait in order and without gaps: a Job that fails and is gone has failed.
//   - The meaning of ready is kstatus', with Flux's additions (section 6 of the Flux facts). Where this package differs from
//     Flux, docs/health.md says so.
//   - Wait writes nothing. All that it and the hub have started has ended when the hub's Close returns.
//   - Diagnose only reads, never fails, and tells in its notes what it was not allowed to read.
//
// Everything is safe for concurrent use.
package health
