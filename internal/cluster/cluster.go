package cluster

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	utilnet "k8s.io/apimachinery/pkg/util/net"
	"k8s.io/apimachinery/pkg/version"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/sluicerun/sluice/internal/cluster/faults"
	"github.com/sluicerun/sluice/internal/cluster/rehearse"
	"github.com/sluicerun/sluice/internal/cluster/schemas"
	"github.com/sluicerun/sluice/internal/retry"
)

// connectRetry is shorter than requestRetry: who gives a wrong address should
// hear of it at once.
var connectRetry = retry.Policy{Attempts: 3, Base: 250 * time.Millisecond, Factor: 2, Jitter: 0.25}

// connectTimeout limits each of the first requests. A firewall that drops
// packets would otherwise hold the run for minutes.
const connectTimeout = 15 * time.Second

// anonymous is who the server takes a request for that carries no credentials.
const anonymous = "system:anonymous"

// Options says which cluster, and as whom.
type Options struct {
	// Kubeconfig is the file the user named; it must exist. Empty: the files
	// of SearchPaths that exist are merged as kubectl does, and if there
	// are none, the service account of the pod this runs in is used.
	Kubeconfig  string
	SearchPaths []string
	// Context names a context of the kubeconfig; empty is its current one.
	Context string
	// As is a user to act as (--as), and AsGroups groups; empty is the
	// kubeconfig's own user.
	As       string
	AsGroups []string
	// UserAgent is how requests sign; empty is client-go's default.
	UserAgent string
	// Patience is how long the server may take for an answer, watches aside; 0
	// is a little more than the minute that it allows itself.
	Patience time.Duration
	// Warning gets each warning that the API server sends along with an
	// answer, such as the use of a deprecated version. It may be called
	// concurrently. Nil drops them.
	Warning func(text string)
	// Busy hears when the server asks to be spared for a while, once for each
	// pause and how long it is at first. It may be called concurrently. Nil is
	// nobody.
	Busy func(pause time.Duration)
	// MayWrite is asked before each request that is to change something, but not
	// before those of [ForLock]; its error is the request's. It may be called
	// concurrently. Nil permits all.
	MayWrite func() error
	// Log gets the log lines of the Kubernetes libraries. It may be called
	// concurrently. Nil drops them.
	Log func(line string)
	// Done, if not nil, ends the questions for kinds when it is closed, those
	// under way, too: whoever asks a mapper gives no context of its own.
	Done <-chan struct{}
}

// Cluster is a cluster that has answered.
type Cluster struct {
	// Context is the kubeconfig's context, empty inside a pod.
	Context string
	// Server is the API server's URL without credentials.
	Server string
	// ServerVersion is what it says it is, such as "v1.37.0".
	ServerVersion string
	// User is who the server takes these requests to come from; empty if
	// it does not say.
	User string

	config  *rest.Config
	http    *http.Client
	mapper  *mapper
	limits  *limits
	schemas *schemas.Loader
	done    <-chan struct{}
	// origin says where a remote cluster's configuration is from, and ignored
	// what of it is not followed; both are empty for the run's own.
	origin  string
	ignored ignored

	mu      sync.Mutex
	clients map[string]client.WithWatch
	// uid is what identity found; nil until asked.
	uid *string
}

// Connect chooses a configuration and asks the server for its version and
// who the user is. Its failures are of type [*Error]; a cancelled ctx gives
// its cause.
func Connect(ctx context.Context, o Options) (*Cluster, error) {
	routeLogs(o.Log)
	config, name, err := restConfig(o)
	if err != nil {
		return nil, err
	}
	if o.As != "" || len(o.AsGroups) > 0 {
		config.Impersonate = rest.ImpersonationConfig{UserName: o.As, Groups: slices.Clone(o.AsGroups)}
	}
	c := &Cluster{Context: name, limits: newLimits(MaxRequests, cmp.Or(o.Patience, requestTimeout), o.Busy, o.MayWrite), done: o.Done}
	if err := c.open(ctx, config, o.UserAgent, o.Warning, o.As); err != nil {
		return nil, err
	}
	return c, nil
}

// open makes the connection that a configuration describes and greets the
// server.
func (c *Cluster) open(ctx context.Context, config *rest.Config, userAgent string, warning func(string), as string) error {
	// The server's own flow control decides (the package comment).
	config.QPS, config.Burst = -1, -1
	config.Timeout = 0
	c.limits.wrap(config)
	if userAgent != "" {
		config.UserAgent = userAgent
	}
	config.WarningHandlerWithContext = warnings{warning}
	c.Server, c.config, c.clients = bareURL(config.Host), config, map[string]client.WithWatch{}
	var err error
	c.limits.life = ctx
	if c.http, err = rest.HTTPClientFor(config); err != nil {
		return &Error{Problem: BadKubeconfig, Context: c.Context, Server: c.Server, Err: err,
			text: c.describe("cannot use the credentials for"), hint: "check the user and the cluster that the kubeconfig's context names"}
	}
	bePrompt(c.http, config)
	disco, err := discovery.NewDiscoveryClientForConfigAndClient(config, c.http)
	if err != nil {
		return &Error{Problem: BadKubeconfig, Context: c.Context, Server: c.Server, Err: err,
			text: c.describe("cannot use the address of"), hint: "check the cluster's server in the kubeconfig"}
	}
	c.mapper, c.schemas = &mapper{disco: disco, on: c.limits, done: c.done}, schemas.New(disco.RESTClient())
	return c.greet(ctx, disco, as)
}

// ShareRequests makes the requests of this connection count together with those
// of another one, which leads to the same API server.
func (c *Cluster) ShareRequests(with *Cluster) { c.limits.queue.Store(with.limits.queue.Load()) }

// Repeated is how many requests have been sent again so far, because their failure
// could pass.
func (c *Cluster) Repeated() int { return int(c.limits.again.Load()) }

// Close lets go of the connections that are not in use.
func (c *Cluster) Close() { utilnet.CloseIdleConnectionsFor(c.http.Transport) }

// greet makes the first requests. Two are needed: anybody may read the
// version, so only the second shows whether the credentials are accepted.
func (c *Cluster) greet(ctx context.Context, disco *discovery.DiscoveryClient, as string) error {
	var raw []byte
	err := c.first(ctx, func(ctx context.Context) (err error) {
		raw, err = disco.RESTClient().Get().AbsPath("/version").DoRaw(ctx)
		return err
	})
	if err != nil {
		return c.refused(err, as)
	}
	var info version.Info
	if err := json.Unmarshal(raw, &info); err != nil || info.GitVersion == "" {
		return c.foreign(fmt.Errorf("its answer to /version is not Kubernetes' own"))
	}
	c.ServerVersion = info.GitVersion

	review := &authenticationv1.SelfSubjectReview{}
	reviews, err := client.New(c.config, client.Options{HTTPClient: c.http, Scheme: scheme.Scheme, Mapper: c.mapper})
	if err != nil {
		return c.refused(err, as)
	}
	err = c.first(ctx, func(ctx context.Context) error { return reviews.Create(ctx, review) })
	switch {
	case err == nil:
		c.User = review.Status.UserInfo.Username
	case apierrors.IsNotFound(err), meta.IsNoMatchError(err):
		// Kubernetes before 1.28 does not serve it; the first real
		// request will show.
		return nil
	case apierrors.IsForbidden(err) && as == "" && !strings.Contains(err.Error(), anonymous):
		// Every user may ask that, by a default rule that can be taken
		// away. It is no reason to stop.
		return nil
	case apierrors.IsForbidden(err) && as == "":
		c.User = anonymous
	default:
		return c.refused(err, as)
	}
	if c.User == anonymous {
		return &Error{Problem: Unauthorized, Context: c.Context, Server: c.Server, text: c.describe("no credentials for"),
			hint: "the kubeconfig's user has no token, certificate or command that the server accepts, so it sees an anonymous visitor"}
	}
	return nil
}

// first runs one of the first requests.
func (c *Cluster) first(ctx context.Context, request func(context.Context) error) error {
	return retry.Do(ctx, connectRetry, func(ctx context.Context, attempt int) error {
		if attempt > 1 {
			c.limits.again.Add(1)
		}
		limited, cancel := context.WithTimeoutCause(ctx, connectTimeout, errNoAnswer)
		defer cancel()
		err := request(limited)
		if err != nil && ctx.Err() == nil && limited.Err() != nil {
			return retry.Permanent(errNoAnswer)
		}
		if err != nil && !faults.Of(err).Passing() {
			return retry.Permanent(err)
		}
		return err
	})
}

var errNoAnswer = fmt.Errorf("no answer within %s", connectTimeout)

// refused puts what a first request failed with into words.
func (c *Cluster) refused(err error, as string) error {
	e := &Error{Context: c.Context, Server: c.Server, Err: err}
	var status apierrors.APIStatus
	switch {
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return err
	case apierrors.IsUnauthorized(err):
		e.Problem, e.text = Unauthorized, c.describe("not let in by")
		e.hint = "the credentials of the kubeconfig's user are wrong or have expired; in CI, check the secret or the login step that makes them"
	case apierrors.IsForbidden(err) && as != "":
		e.Problem, e.text = Forbidden, c.describe(fmt.Sprintf("not allowed to act as %q on", as))
		e.hint = "give the kubeconfig's user the verb \"impersonate\" on it, or leave --as out"
	case apierrors.IsForbidden(err):
		e.Problem, e.text = Forbidden, c.describe("not allowed to use")
		e.hint = "give the kubeconfig's user the rights it needs; `kubectl auth can-i --list` shows those it has"
	case errors.As(err, &status) && !faults.Of(err).Passing():
		return c.foreign(err)
	case strings.Contains(err.Error(), "getting credentials: "):
		// client-go's words for a failing exec plug-in.
		e.Problem, e.text = Unauthorized, c.describe("no credentials for")
		e.hint = "the command that the kubeconfig's user names failed; is it installed here, and logged in?"
	case strings.Contains(err.Error(), "x509: "):
		e.Problem, e.text = Unreachable, c.describe("do not trust")
		e.hint = "the server's certificate does not fit the authority in the kubeconfig; check certificate-authority-data, and whether a proxy is in between"
	default:
		e.Problem, e.text = Unreachable, c.describe("cannot reach")
		e.hint = "check the address and the network between here and there (VPN, firewall, private endpoint, proxy variables)"
	}
	return e
}

func (c *Cluster) foreign(err error) error {
	return &Error{Problem: NotKubernetes, Context: c.Context, Server: c.Server, Err: err,
		text: c.describe("what answers does not look like"),
		hint: "check the cluster's server in the kubeconfig, and whether a proxy is in between"}
}

func (c *Cluster) describe(what string) string {
	if c.origin != "" {
		return fmt.Sprintf("%s the API server %s (of %s)", what, c.Server, c.origin)
	}
	if c.Context == "" {
		return fmt.Sprintf("%s the API server %s", what, c.Server)
	}
	return fmt.Sprintf("%s the API server %s (context %q)", what, c.Server, c.Context)
}

// Config returns a copy of the configuration for a user to act as; empty is
// the user of the kubeconfig or of Options.As. The copy is the caller's.
//
// Only the name is set, and it replaces a user given with Options.As: the API
// server knows no impersonation on top of another, and it adds a service
// account's groups itself (S4.40). So the kubeconfig's user needs the right to
// impersonate each of them.
func (c *Cluster) Config(user string) *rest.Config {
	config := rest.CopyConfig(c.config)
	if user != "" {
		config.Impersonate = rest.ImpersonationConfig{UserName: user}
	}
	return config
}

// ServiceAccountUser returns the user name of a service account, empty for an
// empty name (S4.40).
func ServiceAccountUser(namespace, name string) string {
	if name == "" {
		return ""
	}
	return "system:serviceaccount:" + namespace + ":" + name
}

// Client returns the client that acts as a user; empty is the user of the
// kubeconfig or of Options.As. There is one per user, made at the first call.
func (c *Cluster) Client(user string) (client.WithWatch, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if made, ok := c.clients[user]; ok {
		return made, nil
	}
	config, httpClient, err := c.connection(user)
	if err != nil {
		return nil, err
	}
	made, err := client.NewWithWatch(config, client.Options{HTTPClient: httpClient, Scheme: scheme.Scheme, Mapper: c.mapper})
	if err != nil {
		return nil, fmt.Errorf("cannot make a client for %q: %w", user, err)
	}
	c.clients[user] = &retryingClient{WithWatch: made, policy: requestRetry, mapper: c.mapper, on: c.limits}
	return c.clients[user], nil
}

// Dynamic returns a dynamic client that acts as a user. It does not retry.
func (c *Cluster) Dynamic(user string) (dynamic.Interface, error) {
	config, httpClient, err := c.connection(user)
	if err != nil {
		return nil, err
	}
	return dynamic.NewForConfigAndClient(config, httpClient)
}

// Mapper returns what knows the server's kinds, shared by all clients. It
// asks the server at its first use, and again for a kind that it does not
// know, so a definition applied a moment ago is found.
func (c *Cluster) Mapper() meta.RESTMapper { return c.mapper }

// connection returns configuration and HTTP client for a user. client-go keeps one
// connection pool per set of TLS settings below them, so all users share it.
func (c *Cluster) connection(user string) (*rest.Config, *http.Client, error) {
	config := c.Config(user)
	if user == "" {
		return config, c.http, nil
	}
	httpClient, err := rest.HTTPClientFor(config)
	if err != nil {
		return nil, nil, fmt.Errorf("cannot make a connection for %q: %w", user, err)
	}
	bePrompt(httpClient, config)
	return config, httpClient, nil
}

// bareURL removes what a server's address may hold of credentials.
func bareURL(host string) string {
	if !strings.Contains(host, "://") {
		host = "https://" + host
	}
	u, err := url.Parse(host)
	if err != nil {
		return "(an address that is no URL)"
	}
	u.User, u.RawQuery, u.Fragment = nil, "", ""
	return strings.TrimSuffix(u.String(), "/")
}

// warnings hands the API server's warnings on.
type warnings struct{ to func(string) }

func (w warnings) HandleWarningHeaderWithContext(ctx context.Context, code int, _ string, text string) {
	// 299 is the code that Kubernetes uses; others come from proxies.
	if w.to == nil || code != 299 || text == "" || rehearse.IsQuiet(ctx) {
		return
	}
	w.to(text)
}
