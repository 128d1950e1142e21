// Package definition judges custom resources by the CustomResourceDefinition that
// a commit brings, before any server has it.
//
// The judge is the API server's own code (k8s.io/apiextensions-apiserver), in the
// order in which a server goes through a server-side apply that creates: the
// fields and their types, defaults, then the schema with its formats and enums,
// lists that are sets or maps, embedded objects, and the rules in CEL. What only
// a cluster knows is left out: admission, rights, quotas, whether the name is
// taken.
//
// It must never refuse what a server would accept. So where servers differ the
// most lenient counts: formats that only newer ones know are not looked at, and a
// definition that this package cannot read judges nothing.
package definition
