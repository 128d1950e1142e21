//go:build unix

package kubetest

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
)

// startTimeout bounds one attempt to start. It usually takes 3 s; a busy machine with one core may need ten times that.
const startTimeout = 90 * time.Second

// pollInterval is the time between two questions to a health endpoint; there is no event to wait for before a server listens.
const pollInterval = 25 * time.Millisecond

var errPortTaken = errors.New("another process took a port")

// running is a cluster within its supervisor.
type running struct {
	layout    layout
	server    string // URL of the API server
	health    *http.Client
	processes []*process
	kubelet   *kubelet
	died      chan *process // receives every component that ends
}

// process is a started component. err is set before exited is closed.
type process struct {
	name   string
	args   []string
	url    string // answers 200 once the component is ready
	cmd    *exec.Cmd
	exited chan struct{}
	err    error
	// meant is set if the process is ended on purpose.
	meant atomic.Bool
}

// startOnce starts all components on new ports and waits until pods can run. If it fails, nothing is left running.
func startOnce(ctx context.Context, l layout, config supervisorConfig) (_ *running, err error) {
	ctx, cancel := context.WithTimeoutCause(ctx, startTimeout, fmt.Errorf("not ready after %s", startTimeout))
	defer cancel()
	r := &running{layout: l, died: make(chan *process, len(components))}
	defer func() {
		if err != nil {
			r.kill()
		}
	}()

	p, err := freePorts()
	if err != nil {
		return nil, err
	}
	r.server = local("https", p.apiserver)
	admin, err := prepare(l, r.server)
	if err != nil {
		return nil, err
	}
	if r.health, err = healthClient(l, admin); err != nil {
		return nil, err
	}

	etcd, err := r.launch(config, "etcd", etcdArgs(l, p), local("http", p.etcd)+"/health")
	if err != nil {
		return nil, err
	}
	if err := r.await(ctx, etcd); err != nil {
		return nil, err
	}
	apiserver, err := r.launch(config, "kube-apiserver", apiserverArgs(l, p), r.server+"/readyz")
	if err != nil {
		return nil, err
	}
	if err := r.await(ctx, apiserver); err != nil {
		return nil, err
	}

	clients, err := clientsFor(l.kubeconfig())
	if err != nil {
		return nil, err
	}
	if r.kubelet, err = startKubelet(l, clients); err != nil {
		return nil, err
	}
	if err := createBasics(ctx, clients, config.Nodes, r.kubelet.port); err != nil {
		return nil, err
	}
	controllerManager, err := r.launch(config, "kube-controller-manager", controllerManagerArgs(l, p), local("https", p.controllerManager)+"/healthz")
	if err != nil {
		return nil, err
	}
	scheduler, err := r.launch(config, "kube-scheduler", schedulerArgs(l, p), local("https", p.scheduler)+"/healthz")
	if err != nil {
		return nil, err
	}
	kwok, err := r.launch(config, "kwok", kwokArgs(l, p), local("http", p.kwok)+"/healthz")
	if err != nil {
		return nil, err
	}
	for _, c := range []*process{controllerManager, scheduler, kwok} {
		if err := r.await(ctx, c); err != nil {
			return nil, err
		}
	}
	return r, r.awaitControllers(ctx, clients, controllerManager)
}

// prepare writes certificates, kubeconfig and stages, and empties what an earlier attempt left.
func prepare(l layout, server string) (admin pair, err error) {
	if err := clean(l, true); err != nil {
		return pair{}, err
	}
	for _, dir := range []string{l.data(), l.pki(""), filepath.Join(l.dir, "logs")} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return pair{}, fmt.Errorf("make the cluster's folder: %w", err)
		}
	}
	ca, err := newAuthority()
	if err != nil {
		return pair{}, err
	}
	serving, err := ca.server()
	if err != nil {
		return pair{}, err
	}
	// Service account tokens are signed with a key of their own; the certificate that comes with it is not used.
	accounts, err := ca.client("service-accounts")
	if err != nil {
		return pair{}, err
	}
	// Members of system:masters may do everything, whatever the RBAC rules say.
	if admin, err = ca.client("kubetest-admin", "system:masters"); err != nil {
		return pair{}, err
	}
	stages, err := renderStages()
	if err != nil {
		return pair{}, err
	}
	return admin, errors.Join(
		ca.save(l.pki("")),
		serving.save(l.pki(""), "server"),
		accounts.save(l.pki(""), "service-accounts"),
		admin.save(l.pki(""), "admin"),
		writeKubeconfig(l.kubeconfig(), server, ca.pem, "kubetest-admin", admin),
		os.WriteFile(l.stages(), stages, 0o600),
	)
}

// launch starts a component with its output in its log. It must run on the main thread, see childAttr.
func (r *running) launch(config supervisorConfig, name string, args []string, url string) (*process, error) {
	if err := os.WriteFile(r.layout.log(name), nil, 0o600); err != nil {
		return nil, fmt.Errorf("make the log of %s: %w", name, err)
	}
	p := &process{name: name, args: args, url: url}
	if err := r.run(config, p); err != nil {
		return nil, err
	}
	r.processes = append(r.processes, p)
	return p, nil
}

// run starts the program of a component that does not run, and adds to its log.
func (r *running) run(config supervisorConfig, p *process) error {
	log, err := os.OpenFile(r.layout.log(p.name), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		return fmt.Errorf("open the log of %s: %w", p.name, err)
	}
	defer log.Close() // the component has its own descriptor
	cmd := exec.Command(config.Binaries[p.name], p.args...)
	cmd.Dir = r.layout.dir
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = childAttr()
	// The user's own kubeconfig, proxy and locale are none of a component's business.
	cmd.Env = []string{"HOME=" + r.layout.dir, "PATH=/usr/bin:/bin"}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start %s: %w", p.name, err)
	}
	exited := make(chan struct{})
	p.cmd, p.exited, p.err = cmd, exited, nil
	p.meant.Store(false)
	go func() {
		err := cmd.Wait()
		if err == nil {
			err = errors.New("exit status 0")
		}
		p.err = err
		meant := p.meant.Load()
		close(exited)
		if !meant {
			r.died <- p
		}
	}()
	return nil
}

// await asks a component until it says that it is ready. It fails as soon as the component ends.
func (r *running) await(ctx context.Context, p *process) error {
	tick := time.NewTicker(pollInterval)
	defer tick.Stop()
	for {
		last := ask(ctx, r.health, p.url)
		if last == nil {
			return nil
		}
		select {
		case <-p.exited:
			return r.failure(p, p.err)
		case <-ctx.Done():
			return r.failure(p, fmt.Errorf("%w; %s says: %w", context.Cause(ctx), p.url, last))
		case <-tick.C:
		}
	}
}

func ask(ctx context.Context, client *http.Client, url string) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	response, err := client.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return errors.New(response.Status)
	}
	return nil
}

// awaitControllers waits until the controllers do their work: health endpoints answer before that. The default service account
// is made by one of them.
func (r *running) awaitControllers(ctx context.Context, clients kubernetes.Interface, p *process) error {
	tick := time.NewTicker(pollInterval)
	defer tick.Stop()
	for {
		_, err := clients.CoreV1().ServiceAccounts("default").Get(ctx, "default", metav1.GetOptions{})
		if err == nil {
			return nil
		}
		select {
		case <-p.exited:
			return r.failure(p, p.err)
		case <-ctx.Done():
			return r.failure(p, fmt.Errorf("%w; the default service account: %w", context.Cause(ctx), err))
		case <-tick.C:
		}
	}
}

// failure explains with the end of its log why a component did not become ready.
func (r *running) failure(p *process, err error) error {
	tail := logTail(r.layout.log(p.name), tailLines)
	if strings.Contains(tail, "address already in use") {
		return fmt.Errorf("start %s: %w", p.name, errPortTaken)
	}
	return fmt.Errorf("start %s: %w; the end of %s:\n%s", p.name, err, r.layout.log(p.name), tail)
}

// kill ends all components at once and waits until they are gone. Nothing needs to be saved, so nobody is asked politely.
func (r *running) kill() {
	for _, p := range r.processes {
		// It fails only if the process is gone already.
		_ = p.cmd.Process.Kill()
	}
	for _, p := range r.processes {
		<-p.exited
	}
	if r.kubelet != nil {
		r.kubelet.stop()
	}
}

// tailLines is how much of a log goes into an error.
const tailLines = 15

// logTail is the end of a log file, the last n lines.
func logTail(path string, n int) string {
	data, err := os.ReadFile(path)
	if err != nil {
		return err.Error()
	}
	lines := strings.Split(strings.TrimSpace(string(data)), "\n")
	return "  " + strings.Join(lines[max(0, len(lines)-n):], "\n  ")
}

// healthClient trusts the cluster's authority and shows the administrator's certificate.
func healthClient(l layout, admin pair) (*http.Client, error) {
	ca, err := os.ReadFile(l.pki("ca.crt"))
	if err != nil {
		return nil, fmt.Errorf("read the certificate authority: %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(ca) {
		return nil, fmt.Errorf("%q holds no certificate", l.pki("ca.crt"))
	}
	cert, err := tls.X509KeyPair(admin.cert, admin.key)
	if err != nil {
		return nil, fmt.Errorf("read the administrator's certificate: %w", err)
	}
	return &http.Client{
		Timeout:   5 * time.Second,
		Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool, Certificates: []tls.Certificate{cert}}},
	}, nil
}

func clientsFor(kubeconfig string) (kubernetes.Interface, error) {
	config, err := configFor(kubeconfig)
	if err != nil {
		return nil, err
	}
	clients, err := kubernetes.NewForConfig(config)
	if err != nil {
		return nil, fmt.Errorf("make a client of the test cluster: %w", err)
	}
	return clients, nil
}

// configFor is the client configuration of a kubeconfig, without client-side throttling.
func configFor(kubeconfig string) (*rest.Config, error) {
	config, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if err != nil {
		return nil, fmt.Errorf("read the kubeconfig of the test cluster: %w", err)
	}
	config.QPS = -1
	return config, nil
}
