//go:build unix

package kubetest

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
)

// Annotations that hold what a pod's containers are supposed to have printed. A container's own line, "log.NAME", goes first.
const (
	logAnnotation         = annotationPrefix + "log"
	previousLogAnnotation = annotationPrefix + "previous-log"
)

// kubelet serves the one part of the kubelet's API that KWOK has no good answer for: logs that the pod itself names, so that a
// repository under test says in one place how its pod fails and what the pod printed before that.
type kubelet struct {
	port   int
	server *http.Server
	done   chan struct{}
}

// startKubelet listens on a free port of the loopback interface. Only holders of a certificate of the cluster are let in.
func startKubelet(l layout, clients kubernetes.Interface) (*kubelet, error) {
	cert, err := tls.LoadX509KeyPair(l.pki("server.crt"), l.pki("server.key"))
	if err != nil {
		return nil, fmt.Errorf("read the serving certificate: %w", err)
	}
	ca, err := os.ReadFile(l.pki("ca.crt"))
	if err != nil {
		return nil, fmt.Errorf("read the certificate authority: %w", err)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(ca)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("listen for requests for logs: %w", err)
	}
	mux := http.NewServeMux()
	mux.Handle("GET /containerLogs/{namespace}/{pod}/{container}", logHandler{clients})
	k := &kubelet{
		port:   listener.Addr().(*net.TCPAddr).Port,
		server: &http.Server{Handler: mux, ReadHeaderTimeout: 10 * time.Second},
		done:   make(chan struct{}),
	}
	secure := tls.NewListener(listener, &tls.Config{
		Certificates: []tls.Certificate{cert},
		ClientCAs:    pool,
		ClientAuth:   tls.RequireAndVerifyClientCert,
	})
	go func() {
		defer close(k.done)
		if err := k.server.Serve(secure); !errors.Is(err, http.ErrServerClosed) {
			fmt.Fprintln(os.Stderr, "serve logs:", err)
		}
	}()
	return k, nil
}

func (k *kubelet) stop() {
	// It can only fail to close a listener that is already closed.
	_ = k.server.Close()
	<-k.done
}

// logHandler answers GET /containerLogs as a kubelet does.
type logHandler struct{ clients kubernetes.Interface }

func (h logHandler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	text, err := h.logs(r.Context(), r)
	if err != nil {
		status := http.StatusInternalServerError
		var bad badLogRequest
		switch {
		case errors.As(err, &bad):
			status = http.StatusBadRequest
		case apierrors.IsNotFound(err):
			status = http.StatusNotFound
		}
		w.WriteHeader(status)
		// A client that went away is not our problem, here and below.
		_, _ = w.Write([]byte(err.Error()))
		return
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	_, _ = w.Write([]byte(text))
}

// badLogRequest is an error that the kubelet answers with 400.
type badLogRequest string

func (b badLogRequest) Error() string { return string(b) }

func (h logHandler) logs(ctx context.Context, r *http.Request) (string, error) {
	pod, err := h.clients.CoreV1().Pods(r.PathValue("namespace")).Get(ctx, r.PathValue("pod"), metav1.GetOptions{})
	if err != nil {
		return "", err
	}
	query := r.URL.Query()
	previous := query.Get("previous") == "true"
	text, since, err := containerLog(pod, r.PathValue("container"), previous)
	if err != nil {
		return "", err
	}
	lines := strings.SplitAfter(text, "\n")
	if lines[len(lines)-1] == "" {
		lines = lines[:len(lines)-1]
	}
	if tail := query.Get("tailLines"); tail != "" {
		n, err := strconv.Atoi(tail)
		if err != nil || n < 0 {
			return "", badLogRequest(fmt.Sprintf("tailLines: %q is not a number", tail))
		}
		lines = lines[max(0, len(lines)-n):]
	}
	if query.Get("timestamps") == "true" {
		for i := range lines {
			lines[i] = since.UTC().Format(time.RFC3339Nano) + " " + lines[i]
		}
	}
	text = strings.Join(lines, "")
	if limit := query.Get("limitBytes"); limit != "" {
		n, err := strconv.Atoi(limit)
		if err != nil || n < 0 {
			return "", badLogRequest(fmt.Sprintf("limitBytes: %q is not a number", limit))
		}
		text = text[:min(n, len(text))]
	}
	return text, nil
}

// containerLog is what the container printed and when it started, or the kubelet's words for why there is nothing to show.
func containerLog(pod *corev1.Pod, container string, previous bool) (string, time.Time, error) {
	for _, status := range append(pod.Status.InitContainerStatuses, pod.Status.ContainerStatuses...) {
		if status.Name != container {
			continue
		}
		var started time.Time
		switch {
		case previous && status.LastTerminationState.Terminated == nil:
			return "", started, badLogRequest(fmt.Sprintf("previous terminated container %q in pod %q not found", container, pod.Name))
		case previous:
			started = status.LastTerminationState.Terminated.StartedAt.Time
		case status.State.Running != nil:
			started = status.State.Running.StartedAt.Time
		case status.State.Terminated != nil:
			started = status.State.Terminated.StartedAt.Time
		case status.LastTerminationState.Terminated != nil:
			// Between two restarts the kubelet shows the log of the container that ended last.
			started = status.LastTerminationState.Terminated.StartedAt.Time
		default:
			return "", started, badLogRequest(fmt.Sprintf("container %q in pod %q is waiting to start: %s", container, pod.Name, waitingFor(status)))
		}
		return annotatedLog(pod.Annotations, container, previous), started, nil
	}
	return "", time.Time{}, badLogRequest(fmt.Sprintf("container %q in pod %q is waiting to start: ContainerCreating", container, pod.Name))
}

func waitingFor(status corev1.ContainerStatus) string {
	switch {
	case status.State.Waiting == nil:
		return "ContainerCreating"
	case status.State.Waiting.Reason == "ErrImagePull":
		return "image can't be pulled"
	case status.State.Waiting.Reason == "ImagePullBackOff":
		return "trying and failing to pull image"
	}
	return status.State.Waiting.Reason
}

// annotatedLog is the most specific annotation. Without one for the previous container, it printed the same as the current one.
func annotatedLog(annotations map[string]string, container string, previous bool) string {
	keys := []string{logAnnotation + "." + container, logAnnotation}
	if previous {
		keys = append([]string{previousLogAnnotation + "." + container, previousLogAnnotation}, keys...)
	}
	for _, key := range keys {
		if text, ok := annotations[key]; ok {
			if text != "" && !strings.HasSuffix(text, "\n") {
				text += "\n"
			}
			return text
		}
	}
	return ""
}
