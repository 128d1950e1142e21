package health

import (
	"context"
	"fmt"
	"io"
	"net/http"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/rest"
)

// Clients is what this package needs of a cluster. All parts must reach the same cluster as the same user: S6.7 has health
// checked where, and by whom, the objects were applied. It is a bundle of values that are each safe for concurrent use.
type Clients struct {
	// Dynamic reads and watches objects of every kind. Its requests must have no time limit of their own, since a watch is
	// a request that lasts.
	Dynamic dynamic.Interface
	// Metadata, if not nil, is used for kinds whose content says nothing about health, so that waiting for a Secret never
	// transfers what is in it.
	Metadata metadata.Interface
	// Mapper finds the resource of a kind. It may be shared; a mapper that keeps an answer for ever must implement
	// meta.ResettableRESTMapper, else a kind that appears during the wait is not seen.
	Mapper meta.RESTMapper
	// Logs reads container logs for Diagnose. Nil means that logs cannot be had.
	Logs LogReader
}

// LogReader opens the log of one container. The caller closes the result. Errors are the API server's.
type LogReader interface {
	ContainerLog(ctx context.Context, namespace, pod string, o corev1.PodLogOptions) (io.ReadCloser, error)
}

// NewClients makes the clients for a configuration. The mapper is the caller's own, since it is best shared. If httpClient is
// nil, one is made for config. config is not changed; a time limit in it is left out, see [Clients].
func NewClients(config *rest.Config, httpClient *http.Client, mapper meta.RESTMapper) (Clients, error) {
	config = rest.CopyConfig(config)
	config.Timeout = 0
	if httpClient == nil {
		made, err := rest.HTTPClientFor(config)
		if err != nil {
			return Clients{}, fmt.Errorf("health: HTTP client for %s: %w", config.Host, err)
		}
		httpClient = made
	} else if httpClient.Timeout != 0 {
		lasting := *httpClient
		lasting.Timeout = 0
		httpClient = &lasting
	}
	dyn, err := dynamic.NewForConfigAndClient(config, httpClient)
	if err != nil {
		return Clients{}, fmt.Errorf("health: client for %s: %w", config.Host, err)
	}
	md, err := metadata.NewForConfigAndClient(config, httpClient)
	if err != nil {
		return Clients{}, fmt.Errorf("health: metadata client for %s: %w", config.Host, err)
	}
	logs, err := newPodLogs(config, httpClient)
	if err != nil {
		return Clients{}, fmt.Errorf("health: log client for %s: %w", config.Host, err)
	}
	return Clients{Dynamic: dyn, Metadata: md, Mapper: mapper, Logs: logs}, nil
}

// podLogs reads logs through the core API. It needs no typed client set, whose start-up cost every command would pay.
type podLogs struct {
	client rest.Interface
	params runtime.ParameterCodec
}

func newPodLogs(config *rest.Config, httpClient *http.Client) (*podLogs, error) {
	scheme := runtime.NewScheme()
	if err := corev1.AddToScheme(scheme); err != nil {
		return nil, err
	}
	metav1.AddToGroupVersion(scheme, corev1.SchemeGroupVersion)
	config = rest.CopyConfig(config)
	config.APIPath = "/api"
	config.GroupVersion = &corev1.SchemeGroupVersion
	config.NegotiatedSerializer = serializer.NewCodecFactory(scheme).WithoutConversion()
	client, err := rest.RESTClientForConfigAndClient(config, httpClient)
	if err != nil {
		return nil, err
	}
	return &podLogs{client: client, params: runtime.NewParameterCodec(scheme)}, nil
}

func (l *podLogs) ContainerLog(ctx context.Context, namespace, pod string, o corev1.PodLogOptions) (io.ReadCloser, error) {
	return l.client.Get().Namespace(namespace).Resource("pods").Name(pod).SubResource("log").
		VersionedParams(&o, l.params).Stream(ctx)
}
