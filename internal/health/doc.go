// Package health says when what a Kustomization applied is ready, and why it is not.
//
// [Select] chooses what is waited for, as the wait mode and the spec say (S6.1 to S6.6). [Wait] watches those objects until
// all are Current, one has Failed, the time is up or the context ends. [Diagnose] reads what stands behind an object that
// did not become ready: its pods, their containers' states, warning events and last log lines.
//
// Contract:
//
//   - Nothing is polled. Objects are listed once, consistently (an answer is never older than the question, so a gate cannot
//     open on what was there before the apply), and then watched; a gate opens with the event that makes the last object
//     Current. A watch that breaks, expires or was never possible is begun anew with a growing pause, never given up.
//   - The meaning of ready is kstatus', with Flux's additions (section 6 of the Flux facts). Where this package differs from
//     Flux, docs/health.md says so.
//   - Wait writes nothing. All that it started has ended when it returns.
//   - Diagnose only reads, never fails, and tells in its notes what it was not allowed to read.
//
// All functions are safe for concurrent use with the same [Clients].
package health
