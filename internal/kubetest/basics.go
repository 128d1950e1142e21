//go:build unix

package kubetest

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
)

// volumeProvisioner is the name under which stages/volumes.yaml provides PersistentVolumes.
const volumeProvisioner = "kubetest.sluice.run/volumes"

// createBasics makes what a new cluster has on its first day: nodes and a default StorageClass.
func createBasics(ctx context.Context, clients kubernetes.Interface, nodes, kubeletPort int) error {
	for i := 1; i <= nodes; i++ {
		node := newNode(fmt.Sprintf("node-%d", i), kubeletPort)
		if _, err := clients.CoreV1().Nodes().Create(ctx, node, metav1.CreateOptions{}); err != nil {
			return fmt.Errorf("create node %q: %w", node.Name, err)
		}
	}
	class := &storagev1.StorageClass{
		ObjectMeta: metav1.ObjectMeta{
			Name:        "standard",
			Annotations: map[string]string{"storageclass.kubernetes.io/is-default-class": "true"},
		},
		Provisioner: volumeProvisioner,
	}
	if _, err := clients.StorageV1().StorageClasses().Create(ctx, class, metav1.CreateOptions{}); err != nil {
		return fmt.Errorf("create the default StorageClass: %w", err)
	}
	return nil
}

// newNode is a node that has been ready since its creation, with room for every test. Its kubelet is the supervisor's, at
// kubeletPort of the loopback interface.
func newNode(name string, kubeletPort int) *corev1.Node {
	room := corev1.ResourceList{
		corev1.ResourceCPU:              resource.MustParse("1000"),
		corev1.ResourceMemory:           resource.MustParse("1Ti"),
		corev1.ResourceEphemeralStorage: resource.MustParse("1Ti"),
		corev1.ResourcePods:             resource.MustParse("10000"),
	}
	now := metav1.Now()
	return &corev1.Node{
		ObjectMeta: metav1.ObjectMeta{
			Name:   name,
			Labels: map[string]string{corev1.LabelHostname: name, corev1.LabelOSStable: "linux", corev1.LabelArchStable: "amd64"},
		},
		Status: corev1.NodeStatus{
			Capacity:    room,
			Allocatable: room,
			Addresses: []corev1.NodeAddress{
				{Type: corev1.NodeInternalIP, Address: "127.0.0.1"},
				{Type: corev1.NodeHostName, Address: name},
			},
			DaemonEndpoints: corev1.NodeDaemonEndpoints{KubeletEndpoint: corev1.DaemonEndpoint{Port: int32(kubeletPort)}},
			NodeInfo: corev1.NodeSystemInfo{
				Architecture: "amd64", OperatingSystem: "linux", OSImage: "none", KernelVersion: "none",
				ContainerRuntimeVersion: "kwok://none", KubeletVersion: "v0.0.0-kubetest",
			},
			Conditions: []corev1.NodeCondition{{
				Type: corev1.NodeReady, Status: corev1.ConditionTrue, Reason: "KubeletReady", Message: "played by KWOK",
				LastHeartbeatTime: now, LastTransitionTime: now,
			}},
		},
	}
}
