// Package lock keeps two runs of the same root apart with a Lease.
//
// A Lock is renewed in the background and short, so that the lock of a job that was killed frees itself. Whoever finds it taken
// watches the Lease and takes over the moment it is released or expires.
//
// Clocks: no decision compares the clocks of two machines. A waiter counts the duration of the Lease from the moment at which it
// saw it renewed, as leader election does. What it finds at its first look it judges by the API server's clock alone: the server's
// own note of the last write (managedFields) against the time of a dry run. So the lock of a job that died an hour ago is taken at
// once, and a runner whose clock is wrong neither steals a lock nor loses one.
//
// The holder stops believing in its lock before anybody else may take it: it counts from before it sent the last renewal that
// succeeded, and gives up some seconds before the end, so that what it is writing has ended by then, too.
package lock
