//go:build unix

package kubetest

import (
	"context"
	"strings"
	"sync"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
)

// shared is the cluster of this test binary.
var shared struct {
	once    sync.Once
	cluster *Cluster
	err     error
}

// Shared returns the one cluster of this test binary and starts it if no test has asked for it before. Nobody has to stop it: it
// ends with the binary. Tests keep apart by Namespace; a test that changes what is not in a namespace cleans up itself.
func Shared(t testing.TB) *Cluster {
	t.Helper()
	shared.once.Do(func() {
		// Not the test's context: the cluster outlives the test that happens to be first.
		shared.cluster, shared.err = Start(context.Background(), Options{})
	})
	if shared.err != nil {
		t.Fatal(shared.err)
	}
	select {
	case <-shared.cluster.Ended():
		t.Fatal(shared.cluster.Stop())
	default:
	}
	return shared.cluster
}

// Namespace creates a namespace for the test and returns its name, which starts with the test's. It is deleted when the test ends;
// the controllers empty it in their own time, and nobody waits for that.
func Namespace(t testing.TB, c *Cluster) string {
	t.Helper()
	clients, err := kubernetes.NewForConfig(c.Config())
	if err != nil {
		t.Fatal(err)
	}
	namespaces := clients.CoreV1().Namespaces()
	created, err := namespaces.Create(t.Context(), &corev1.Namespace{
		ObjectMeta: metav1.ObjectMeta{GenerateName: namespacePrefix(t.Name())},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatalf("create a namespace: %v", err)
	}
	t.Cleanup(func() {
		// The test's own context has ended by now.
		if err := namespaces.Delete(context.Background(), created.Name, metav1.DeleteOptions{}); err != nil {
			t.Errorf("delete the namespace of the test: %v", err)
		}
	})
	return created.Name
}

// namespacePrefix makes a DNS label of a test's name, short enough for the five characters that the API server adds.
func namespacePrefix(test string) string {
	label := strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z', r >= '0' && r <= '9':
			return r
		case r >= 'A' && r <= 'Z':
			return r - 'A' + 'a'
		}
		return '-'
	}, strings.TrimPrefix(test, "Test"))
	label = strings.Trim(label, "-")
	return "t-" + strings.Trim(label[:min(len(label), 40)], "-") + "-"
}
