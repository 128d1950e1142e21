package cluster

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// remoteTimeout is how long a request to a remote cluster may take (S4.42).
const remoteTimeout = 30 * time.Second

// tokenMargin is how long before its end a token is replaced.
const tokenMargin = 5 * time.Minute

// Remote says how to reach a cluster other than the run's own: by a kubeconfig
// (S4.42), or by an address and tokens (S4.43).
type Remote struct {
	// Origin says where the configuration is from, for messages:
	// "Secret/namespace/name".
	Origin string

	// Kubeconfig is a kubeconfig's content. It must hold everything inline:
	// the files of this machine are not those that its writer meant.
	Kubeconfig []byte
	// AllowExec lets the command of its user run, and AllowInsecureTLS lets it
	// turn off the check of the server's certificate. What is not allowed is
	// ignored, as Flux does: a kubeconfig that has other credentials works.
	AllowExec        bool
	AllowInsecureTLS bool

	// Address is used if Kubeconfig is nil: host and port, or an https URL;
	// CA is the authority of its certificate, empty for the machine's own.
	Address string
	CA      []byte
	// Token returns a token and when it ends. It is called for the first
	// request and again when the end comes near, never concurrently.
	Token func(context.Context) (token string, ends time.Time, err error)

	// UserAgent, Warning, Busy, MayWrite and Done are as in Options.
	UserAgent string
	Warning   func(text string)
	Busy      func(pause time.Duration)
	MayWrite  func() error
	Done      <-chan struct{}
}

// ConnectRemote connects as [Connect] does. Its failures are of type [*Error];
// a cancelled ctx gives its cause.
func ConnectRemote(ctx context.Context, r Remote) (*Cluster, error) {
	c := &Cluster{origin: r.Origin, limits: newLimits(MaxRequests, remoteTimeout, r.Busy, r.MayWrite), done: r.Done}
	config, err := r.config(c)
	if err != nil {
		return nil, err
	}
	if err := c.open(ctx, config, r.UserAgent, r.Warning, ""); err != nil {
		if e := (*Error)(nil); errors.As(err, &e) {
			e.hint = c.remedy(e)
		}
		return nil, err
	}
	return c, nil
}

// remedy is the hint of a failure, with what is ignored of the kubeconfig if
// that may be why.
func (c *Cluster) remedy(e *Error) string {
	switch {
	case c.ignored.insecure && e.Problem == Unreachable && e.Err != nil && strings.Contains(e.Err.Error(), "x509: "):
		return "its insecure-skip-tls-verify is ignored: put the server's authority into it (certificate-authority-data), " +
			"or allow that with --insecure-kubeconfig-tls"
	case c.ignored.exec && (e.Problem == Unauthorized || e.Problem == Forbidden):
		return "the command (exec) of its user is ignored: put a token or a client certificate into it, " +
			"or allow commands with --insecure-kubeconfig-exec"
	}
	return strings.ReplaceAll(e.hint, "the kubeconfig's user", "its user")
}

// ignored is what of a kubeconfig is not followed.
type ignored struct{ insecure, exec bool }

func (r Remote) config(c *Cluster) (*rest.Config, error) {
	if r.Kubeconfig == nil {
		return r.direct()
	}
	bad := func(err error, hint string) error {
		return &Error{Problem: BadKubeconfig, text: fmt.Sprintf("the kubeconfig in %s cannot be used", r.Origin), Err: err, hint: hint}
	}
	raw, err := clientcmd.Load(r.Kubeconfig)
	if err != nil {
		// The parser's words may quote what it could not read.
		return nil, bad(errors.New("it is not a kubeconfig in YAML or JSON"), "check the value of the key")
	}
	if err := inline(raw); err != nil {
		return nil, bad(err, "put the content into the kubeconfig (kubectl config view --flatten does)")
	}
	name, err := chooseContext(raw, "", []string{r.Origin})
	if err != nil {
		if e := (*Error)(nil); errors.As(err, &e) {
			e.hint = "set current-context in it"
		}
		return nil, err
	}
	in, err := clientcmd.NewNonInteractiveClientConfig(*raw, name, &clientcmd.ConfigOverrides{}, nil).ClientConfig()
	if err != nil {
		return nil, bad(err, "check the cluster and the user that its current context names")
	}
	// Only what Flux takes over of it: a run must not act as somebody whom
	// the kubeconfig impersonates, nor read this machine's files.
	config := &rest.Config{
		Host: in.Host, APIPath: in.APIPath, DisableCompression: in.DisableCompression, Proxy: in.Proxy,
		Username: in.Username, Password: in.Password, BearerToken: in.BearerToken,
		TLSClientConfig: rest.TLSClientConfig{
			ServerName: in.ServerName, CAData: in.CAData, CertData: in.CertData, KeyData: in.KeyData,
		},
	}
	if in.Insecure {
		if r.AllowInsecureTLS {
			config.Insecure = true
		} else {
			c.ignored.insecure = true
		}
	}
	if in.ExecProvider != nil {
		if r.AllowExec {
			config.ExecProvider = in.ExecProvider
		} else {
			c.ignored.exec = true
		}
	}
	return config, nil
}

// inline refuses references to files.
func inline(raw *clientcmdapi.Config) error {
	var errs []error
	refuse := func(kind, name, field, file string) {
		if file != "" {
			errs = append(errs, fmt.Errorf("%s %q names a file in %s", kind, name, field))
		}
	}
	for _, name := range slices.Sorted(maps.Keys(raw.Clusters)) {
		if cluster := raw.Clusters[name]; cluster != nil {
			refuse("cluster", name, "certificate-authority", cluster.CertificateAuthority)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(raw.AuthInfos)) {
		user := raw.AuthInfos[name]
		if user == nil {
			continue
		}
		refuse("user", name, "tokenFile", user.TokenFile)
		refuse("user", name, "client-certificate", user.ClientCertificate)
		refuse("user", name, "client-key", user.ClientKey)
	}
	return errors.Join(errs...)
}

// KubeconfigSecrets returns the credentials in a kubeconfig's content, for the
// redactor. One that cannot be read is a secret as a whole.
func KubeconfigSecrets(content []byte) []string {
	raw, err := clientcmd.Load(content)
	if err != nil {
		return []string{string(content)}
	}
	var secrets []string
	for _, name := range slices.Sorted(maps.Keys(raw.AuthInfos)) {
		user := raw.AuthInfos[name]
		if user == nil {
			continue
		}
		secrets = append(secrets, user.Token, user.Password, string(user.ClientKeyData))
		if user.Exec != nil {
			for _, variable := range user.Exec.Env {
				secrets = append(secrets, variable.Value)
			}
		}
		if user.AuthProvider != nil {
			for _, key := range slices.Sorted(maps.Keys(user.AuthProvider.Config)) {
				secrets = append(secrets, user.AuthProvider.Config[key])
			}
		}
	}
	return slices.DeleteFunc(secrets, func(s string) bool { return s == "" })
}

// direct is the configuration for an address and tokens.
func (r Remote) direct() (*rest.Config, error) {
	address := r.Address
	if !strings.Contains(address, "://") {
		address = "https://" + address
	}
	u, err := url.Parse(address)
	if err != nil || u.Scheme != "https" || u.Host == "" {
		return nil, &Error{Problem: BadKubeconfig, text: fmt.Sprintf("the address %q in %s cannot be used", bareURL(r.Address), r.Origin),
			hint: "give the API server's host and port, or an https URL"}
	}
	// Flux keeps the host alone, in lower case.
	config := &rest.Config{Host: "https://" + strings.ToLower(u.Host), TLSClientConfig: rest.TLSClientConfig{CAData: r.CA}}
	tokens := &tokens{ask: r.Token}
	config.Wrap(func(base http.RoundTripper) http.RoundTripper { return &bearer{base: base, tokens: tokens} })
	return config, nil
}

// tokens holds the token in use.
type tokens struct {
	ask func(context.Context) (string, time.Time, error)

	mu    sync.Mutex
	token string
	renew time.Time
}

// current returns a token that is good for a while.
func (t *tokens) current(ctx context.Context) (string, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.token != "" && time.Now().Before(t.renew) {
		return t.token, nil
	}
	token, ends, err := t.ask(ctx)
	if err != nil {
		return "", err
	}
	// One that ends soon is used for half of its time.
	left := time.Until(ends)
	t.token, t.renew = token, time.Now().Add(max(left-tokenMargin, left/2))
	return token, nil
}

// bearer puts the token in use into each request.
type bearer struct {
	base   http.RoundTripper
	tokens *tokens
}

func (b *bearer) RoundTrip(request *http.Request) (*http.Response, error) {
	token, err := b.tokens.current(request.Context())
	if err != nil {
		return nil, err
	}
	request = request.Clone(request.Context())
	request.Header.Set("Authorization", "Bearer "+token)
	return b.base.RoundTrip(request)
}

// WrappedRoundTripper lets client-go reach the transport below.
func (b *bearer) WrappedRoundTripper() http.RoundTripper { return b.base }

// RequestToken asks the cluster for a token of a service account, for the
// audiences (S4.43), and returns when it ends.
func (c *Cluster) RequestToken(ctx context.Context, namespace, account string, audiences []string) (string, time.Time, error) {
	writer, err := c.Client("")
	if err != nil {
		return "", time.Time{}, err
	}
	owner := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: account}}
	request := &authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{Audiences: audiences}}
	// One more token does no harm, so the request may be repeated.
	patient := &retryingClient{policy: requestRetry, on: c.limits}
	err = patient.do(ctx, true, func(ctx context.Context) error { return writer.SubResource("token").Create(ctx, owner, request) })
	if err != nil {
		return "", time.Time{}, fmt.Errorf("cannot get a token of ServiceAccount/%s/%s: %w", namespace, account, err)
	}
	return request.Status.Token, request.Status.ExpirationTimestamp.Time, nil
}

// Same reports whether two connections lead to one cluster: by the identity of
// the namespace kube-system, where both users may read it; else by address and
// authority. An error is one of a request.
func Same(ctx context.Context, a, b *Cluster) (bool, error) {
	idA, err := a.identity(ctx)
	if err != nil {
		return false, err
	}
	idB, err := b.identity(ctx)
	if err != nil {
		return false, err
	}
	if idA != "" && idB != "" {
		return idA == idB, nil
	}
	caA, caB := a.authority(), b.authority()
	return a.Server == b.Server || caA != "" && caA == caB, nil
}

// Identity is what no other cluster has: that of the namespace kube-system, or
// where the user may not read it, the server's address and authority. An error is
// one of the request.
func (c *Cluster) Identity(ctx context.Context) (string, error) {
	uid, err := c.identity(ctx)
	if err != nil || uid != "" {
		return uid, err
	}
	return c.Server + "\n" + c.authority(), nil
}

// authority is that of the server's certificate, as far as the configuration
// names one.
func (c *Cluster) authority() string {
	if len(c.config.CAData) > 0 || c.config.CAFile == "" {
		return strings.TrimSpace(string(c.config.CAData))
	}
	data, err := os.ReadFile(c.config.CAFile)
	if err != nil {
		return "" // gone since the connection was made: nothing to compare
	}
	return strings.TrimSpace(string(data))
}

// identity is what no other cluster has; empty if the user may not read it.
func (c *Cluster) identity(ctx context.Context) (string, error) {
	c.mu.Lock()
	known := c.uid
	c.mu.Unlock()
	if known != nil {
		return *known, nil
	}
	reader, err := c.Client("")
	if err != nil {
		return "", err
	}
	namespace := &metav1.PartialObjectMetadata{}
	namespace.SetGroupVersionKind(schema.GroupVersionKind{Version: "v1", Kind: "Namespace"})
	err = reader.Get(ctx, client.ObjectKey{Name: metav1.NamespaceSystem}, namespace)
	if err != nil && !apierrors.IsForbidden(err) && !apierrors.IsNotFound(err) {
		return "", fmt.Errorf("%s: %w", c.describe("cannot tell apart from others"), err)
	}
	uid := string(namespace.UID)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.uid = &uid
	return uid, nil
}
