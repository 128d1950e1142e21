package faults

import "fmt"

// Trouble is a cause of failures that is worth a code of its own.
type Trouble int

const (
	// NoTrouble: it is another one. The zero value.
	NoTrouble Trouble = iota
	// WebhookDown: an admission webhook does not answer.
	WebhookDown
	// NamespaceGoing: the namespace is being deleted.
	NamespaceGoing
)

// Advice returns what to do about a failure whose cause is not what was asked for,
// and which of the troubles it is, if any; the hint is empty for any other.
func Advice(err error) (trouble Trouble, hint string) {
	if name, ok := Webhook(err); ok {
		return WebhookDown, fmt.Sprintf("bring up what answers the admission webhook %q, or take it away if that is gone for good: "+
			"kubectl get validatingwebhookconfigurations,mutatingwebhookconfigurations shows where it is registered, and the service that it names", name)
	}
	if IsTerminating(err) {
		return NamespaceGoing, "wait until the namespace is gone, or see what holds it: its conditions say which objects and finalizers are left " +
			"(kubectl get namespace NAME -o yaml); then run again"
	}
	switch Of(err) {
	case NoWay, Lost, Silent:
		return NoTrouble, "see whether the API server is up, and the network to it; then run again: it goes on from here"
	case Unwell:
		return NoTrouble, "see how the API server and its etcd are doing; then run again: it goes on from here"
	case Busy:
		return NoTrouble, "the API server was busy for minutes; run again when there is less to do for it: it goes on from here"
	}
	return NoTrouble, ""
}
