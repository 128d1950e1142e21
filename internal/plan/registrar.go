package plan

import (
	"slices"

	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
)

// letsRegister reports whether an object of a run lets somebody register mutating
// webhooks or policies: some operators make those for their own custom resources
// once they run, so that they are in no manifest. None can without the right to,
// and an operator that comes with the run mostly brings that along.
func letsRegister(o *unstructured.Unstructured) bool {
	if o.GroupVersionKind().Group != rbacv1.GroupName {
		return false
	}
	switch o.GetKind() {
	case "ClusterRole":
		role := &rbacv1.ClusterRole{}
		if runtime.DefaultUnstructuredConverter.FromUnstructured(o.Object, role) != nil {
			return false // the server says what is wrong with it
		}
		return slices.ContainsFunc(role.Rules, registers)
	case "ClusterRoleBinding":
		name, _, _ := unstructured.NestedString(o.Object, "roleRef", "name")
		return name == "cluster-admin"
	}
	return false
}

func registers(rule rbacv1.PolicyRule) bool {
	has := func(list []string, names ...string) bool {
		return slices.Contains(list, "*") || slices.ContainsFunc(names, func(name string) bool { return slices.Contains(list, name) })
	}
	return has(rule.APIGroups, admissionGroup) && has(rule.Resources, "mutatingwebhookconfigurations", "mutatingadmissionpolicies") &&
		has(rule.Verbs, "create", "update", "patch")
}
