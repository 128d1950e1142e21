// Package bench measures sluice beside a client that does nothing but the work
// itself, on the same API server and the same machine, and makes the
// repositories for it. docs/benchmarks.md says what is measured and what the
// numbers mean; "make bench" runs it.
//
// [Generate] and [New] write Git repositories of any size with content that
// never varies, so that two runs on any two days build the same objects from
// the same commit. Everything else of the package is benchmarks. They report
// and never judge: a number over its budget is no failure, since it depends on
// what else the machine does, but a run of sluice that does not end with exit
// code 0 is.
//
// The package is for tests and for people at a shell; the product does not
// import it.
package bench
