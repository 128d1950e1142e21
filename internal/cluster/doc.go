// Package cluster turns a kubeconfig into clients for one Kubernetes cluster.
//
// [Connect] chooses the configuration, asks the server who and what it is,
// and returns a [Cluster]. Everything that can be wrong up to there (no
// kubeconfig, no such context, nobody answers, not let in) is an [*Error]
// with a hint. After that, [Cluster.Client] gives one client for each user
// that a Kustomization acts as (S4.40).
//
// Contract:
//
//   - All clients share one HTTP transport, one [meta.RESTMapper] that looks
//     again when a kind is unknown, and the same retries: a request that can
//     be repeated without harm is, by the classes of package faults, and
//     client-go's own repeating is kept out of it.
//   - There is one limit of requests under way for each API server,
//     [MaxRequests], which all users and clients of it share, each party its
//     fair part (package fair, [For]). Watches do not count. There is no limit
//     of requests in a time: the server's own flow control says when to slow
//     down, and when it does (429) all wait as long as it says.
//   - Nothing here prints. What the Kubernetes libraries would log, and the
//     warnings that the API server sends along, go to the callbacks of
//     [Options], or nowhere.
//
// A Cluster and all that it returns are safe for concurrent use.
package cluster
