// Package bench makes the repositories that sluice is measured with, and tells
// other clients what they hold.
//
// [Generate] and [New] write Git repositories of any size with content that
// never varies, so that two runs on any two days build the same objects from
// the same commit. The command compare below it measures sluice and other
// clients with them ("make bench"); docs/benchmarks.md says what is measured
// and what the numbers mean.
//
// The package is for tests and for people at a shell; the product does not
// import it.
package bench
