package cluster

import (
	"fmt"
)

// Problem is what keeps a cluster from being used.
type Problem string

// The problems of Connect.
const (
	// NoKubeconfig: no file was found, and this is not a pod.
	NoKubeconfig Problem = "no-kubeconfig"
	// BadKubeconfig: a file was found and cannot be used.
	BadKubeconfig Problem = "bad-kubeconfig"
	// NoContext: the context asked for is not there, or none was asked for
	// and the kubeconfig names no current one.
	NoContext Problem = "no-context"
	// Unreachable: no server answers at the address.
	Unreachable Problem = "unreachable"
	// Unauthorized: the server does not know who this is (401).
	Unauthorized Problem = "unauthorized"
	// Forbidden: the server knows, and does not allow it (403).
	Forbidden Problem = "forbidden"
	// NotKubernetes: something answers that is no Kubernetes API server.
	NotKubernetes Problem = "not-kubernetes"
)

// Error says why a cluster cannot be used and what to do about it.
type Error struct {
	// Problem is the kind of failure, for callers that branch.
	Problem Problem
	// Context and Server name the cluster as far as it is known.
	Context string
	Server  string
	// Err is the cause, nil if Text says it all.
	Err  error
	text string
	hint string
}

// Error is the text: what is wrong, with the names the user knows.
func (e *Error) Error() string {
	if e.Err == nil {
		return e.text
	}
	return fmt.Sprintf("%s: %v", e.text, e.Err)
}

// Hint is the remedy, in one line.
func (e *Error) Hint() string { return e.hint }

// Unwrap gives the cause.
func (e *Error) Unwrap() error { return e.Err }
