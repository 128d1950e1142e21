package apply

import (
	"errors"
	"net/http"
	"testing"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// refusal is an answer of the server with what it says of each field.
func refusal(code int32, reason metav1.StatusReason, message string, causes ...string) error {
	status := metav1.Status{Status: metav1.StatusFailure, Code: code, Reason: reason, Message: message}
	if len(causes) > 0 {
		status.Details = &metav1.StatusDetails{}
		for _, cause := range causes {
			status.Details.Causes = append(status.Details.Causes, metav1.StatusCause{Type: metav1.CauseTypeFieldValueInvalid, Message: cause})
		}
	}
	return &apierrors.StatusError{ErrStatus: status}
}

// S4.28: which answers are about fields that cannot change, and about nothing
// else. For Flux every conflict and every invalid object is one.
func TestS4_28ImmutableTexts(t *testing.T) {
	invalid := func(causes ...string) error {
		return refusal(http.StatusUnprocessableEntity, metav1.StatusReasonInvalid, "x is invalid", causes...)
	}
	for name, tc := range map[string]struct {
		err  error
		want bool
	}{
		"a rule of a definition": {invalid(`Invalid value: "string": Value is immutable`), true},
		"an admission webhook": {refusal(http.StatusForbidden, metav1.StatusReasonForbidden,
			`admission webhook "deny-immutable-field-updates.cnrm.cloud.google.com" denied the request: the IAMPolicyMember's spec is immutable`), true},
		"an admission policy":  {invalid("ValidatingAdmissionPolicy 'p' with binding 'b' denied request: spec is immutable"), true},
		"not immutable":        {refusal(http.StatusBadRequest, metav1.StatusReasonBadRequest, "is not immutable"), false},
		"a field that is not":  {invalid(`Invalid value: "x": this field is not immutable`), false},
		"a selector":           {invalid(`Invalid value: {"matchLabels":{"a":"b"}}: field is immutable`), true},
		"a Secret":             {invalid("Forbidden: field is immutable when `immutable` is set"), true},
		"a value that says so": {invalid(`Invalid value: "is immutable": must be a DNS label`), false},
		"one of two":           {invalid("field is immutable", "Required value"), false},
		"both of two":          {invalid("field is immutable", "Forbidden: updates to statefulset spec for fields other than 'replicas' are forbidden"), true},
		"a claim":              {invalid("Forbidden: spec is immutable after creation except resources.requests and volumeAttributesClassName for bound claims"), true},
		"a role binding":       {invalid(`Invalid value: {"kind":"ClusterRole","name":"b"}: cannot change roleRef`), true},
		"a service":            {invalid(`Invalid value: ["10.0.0.1"]: may not change once set`), true},
		"a class":              {invalid("Forbidden: updates to provisioner are forbidden."), true},
		"a pod":                {invalid("Forbidden: pod updates may not add or remove containers"), true},
		"a plain mistake":      {invalid(`Unsupported value: "Sometimes": supported values: "Always", "OnFailure", "Never"`), false},
		"a conflict":           {apierrors.NewConflict(schema.GroupResource{Resource: "configmaps"}, "x", errors.New("changed")), false},
		"a failing server":     {refusal(http.StatusInternalServerError, metav1.StatusReasonInternalError, "field is immutable"), false},
		"no answer":            {errors.New("field is immutable"), false},
	} {
		if got := onlyImmutable(tc.err); got != tc.want {
			t.Errorf("%s: %t, want %t", name, got, tc.want)
		}
	}
}
