//go:build unix

package kubetest

import (
	"context"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
)

// Components that are taken away come back, and the cluster is as it was: what is in it is still there, and controllers go on.
func TestOutages(t *testing.T) {
	c, err := Start(t.Context(), Options{})
	if err != nil {
		t.Fatal(err)
	}
	// Registered before the outages, so that it ends after them.
	t.Cleanup(func() {
		if err := c.Stop(); err != nil {
			t.Error(err)
		}
	})
	clients, err := kubernetes.NewForConfig(c.Config())
	if err != nil {
		t.Fatal(err)
	}
	write := func(name string) error {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, err := clients.CoreV1().ConfigMaps("default").Create(ctx, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: name}}, metav1.CreateOptions{})
		return err
	}
	for _, test := range []struct {
		name      string
		takeAway  func(testing.TB, Component) *Outage
		component Component
	}{
		{"server-killed", c.Kill, APIServer},
		{"server-ended", c.Terminate, APIServer},
		{"server-frozen", c.Freeze, APIServer},
		{"etcd-killed", c.Kill, Etcd},
		{"etcd-frozen", c.Freeze, Etcd},
	} {
		t.Run(test.name, func(t *testing.T) {
			outage := test.takeAway(t, test.component)
			if err := write("during-" + test.name); err == nil {
				t.Error("a write succeeded during the outage")
			}
			if err := c.tell(command{orderStart, Scheduler}); err == nil {
				t.Error("a component that runs was started")
			}
			outage.End()
			outage.End()
			deadline := time.Now().Add(time.Minute)
			for err := write("after-" + test.name); err != nil; err = write("after-" + test.name) {
				if time.Now().After(deadline) {
					t.Fatal(err)
				}
			}
		})
	}
	// An outage that the test does not end itself ends with it.
	t.Run("left", func(t *testing.T) { c.Kill(t, Scheduler) })
	namespace := Namespace(t, c) // its default account is made by a controller that has outlived all this
	watch, err := clients.CoreV1().ServiceAccounts(namespace).Watch(t.Context(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer watch.Stop()
	if e, ok := <-watch.ResultChan(); !ok || e.Type != "ADDED" {
		t.Errorf("%v, %t", e, ok)
	}
	if err := c.tell(command{orderKill, "kube-proxy"}); err == nil {
		t.Error("a component was killed that there is not")
	}
}
