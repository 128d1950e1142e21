package cli_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	goruntime "runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/fluxcd/cli-utils/pkg/object"
	"github.com/rogpeppe/go-internal/testscript"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/yaml"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/discovery/cached/memory"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/restmapper"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
	watchtools "k8s.io/client-go/tools/watch"
	"k8s.io/client-go/util/jsonpath"

	"github.com/sluicerun/sluice/internal/cli"
	"github.com/sluicerun/sluice/internal/gittest"
	"github.com/sluicerun/sluice/internal/kubetest"
	"github.com/sluicerun/sluice/internal/kubetest/proxy"
)

// TestMain lets the test binary be the sluice command, so that exit codes,
// streams and signals in the scripts are those of a process.
//
// More scripts than processors run side by side, unless -parallel says otherwise:
// most of the time they wait for roll-outs, retries and limits. Each has a cluster,
// of some 450 MB, so there is a limit.
func TestMain(m *testing.M) {
	if err := flag.Set("test.parallel", strconv.Itoa(min(3*goruntime.GOMAXPROCS(0), 8))); err != nil {
		panic(err)
	}
	testscript.Main(m, map[string]func(){"sluice": func() {
		ctx, stop := cli.Signals(context.Background())
		code := cli.Main(ctx, os.Args, cli.System{Getenv: os.Getenv, Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr})
		stop()
		os.Exit(code)
	}})
}

// TestScript runs every file of testdata/script. A file is a transcript with
// its input files below it. Beside testscript's own commands there are:
//
//	cluster [NAME]              a cluster as new; KUBECONFIG names it, or KUBECONFIG_NAME a second one
//	crds                        define Flux's kinds in the cluster, as its releases do
//	commit FOLDER MESSAGE       commit the folder's files as they are; its .git is made if need be
//	exits CODE PROGRAM ARGS…    run a program that must exit with the code
//	copy SOURCE FOLDER          copy a folder of testdata/repos
//	damage FOLDER               change one bit in the middle of the folder's first file
//	flux reconcile REPO NAMESPACE/NAME…  do what Flux's kustomize-controller would do with these Kustomization objects
//	kube get KIND NAME [PATH]   print an object, or what a JSONPath says of it
//	kube inventory NAMESPACE/NAME  print whose what is of all objects in sluice's record of a Kustomization
//	kube apply FILE             create or change objects as a person would
//	kube patch KIND NAME JSON [MANAGER]  change some fields as a person would, or as another manager
//	kube delete KIND NAME       delete an object
//	kube lease NAME HOLDER SECONDS  renew a Lease as its holder, or free it as nobody
//	kube await KIND NAME [PATH VALUE]  wait until it exists, or until the JSONPath has the value
//	kube secret NAME KEY FILE   make or change a Secret with the file's content under the key
//	kube tokens NAME KEY=VALUE… make or change a ConfigMap by which a kubeConfig leads to the cluster itself
//	kube @CLUSTER …             any of these in a second cluster
//	stranger FILE               write a kubeconfig whose credentials the cluster does not know
//	insecure OLD FILE           write a kubeconfig as the old one, but without an authority
//	witness FILE                write a kubeconfig by which every request is written down
//	writes                      print the requests so far that were to change something, and forget them
//	rewrite FILE OLD NEW        replace text in a file
//	valid FORM FILE             the file is valid json, jsonl, xml, or a log of events
//
// KIND is "v1/ConfigMap" or "apps/v1/Deployment"; NAME is "namespace/name" or
// "name".
func TestScript(t *testing.T) {
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	testscript.Run(t, testscript.Params{
		Dir:                 filepath.Join(root, "testdata", "script"),
		RequireExplicitExec: true,
		UpdateScripts:       os.Getenv("UPDATE_SCRIPTS") != "",
		Setup: func(env *testscript.Env) error {
			env.Setenv("HOME", filepath.Join(env.WorkDir, "home"))
			env.Setenv("TESTDATA", filepath.Join(root, "testdata"))
			env.Values["script"] = env.T()
			env.Values["repos"] = map[string]*gittest.Repo{}
			env.Values["clusters"] = map[string]*kubetest.Cluster{}
			env.Values["witnesses"] = map[string]*proxy.Proxy{}
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"cluster":  startCluster,
			"crds":     defineFlux,
			"commit":   commit,
			"exits":    exits,
			"copy":     copyRepo,
			"damage":   damage,
			"flux":     flux,
			"insecure": insecure,
			"kube":     kube,
			"rewrite":  rewrite,
			"stranger": stranger,
			"witness":  witness,
			"writes":   writes,
			"valid":    valid,
		},
	})
}

// clusters are those of the scripts. Each script has its own, as new.
var clusters kubetest.Pool

func startCluster(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) > 1 {
		ts.Fatalf("usage: cluster [NAME]")
	}
	name, variable := "", "KUBECONFIG"
	if len(args) == 1 {
		name, variable = args[0], "KUBECONFIG_"+args[0]
	}
	c, err := clusters.Take(context.Background())
	ts.Check(err)
	script := ts.Value("script").(interface{ Failed() bool })
	ts.Defer(func() {
		if script.Failed() {
			// What the script has started may still be at work.
			ts.Check(c.Stop())
			return
		}
		if err := clusters.Give(context.Background(), c); err != nil {
			ts.Logf("the next script gets another cluster: %v", err)
		}
	})
	ts.Setenv(variable, c.Kubeconfig())
	ts.Value("clusters").(map[string]*kubetest.Cluster)[name] = c
}

// defineFlux puts the definitions of testdata/crds into the cluster and waits
// until it serves them.
func defineFlux(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) > 0 {
		ts.Fatalf("usage: crds")
	}
	files, err := filepath.Glob(filepath.Join(ts.Getenv("TESTDATA"), "crds", "*.yaml"))
	ts.Check(err)
	for _, file := range files {
		kube(ts, false, []string{"apply", file})
		group, plural, _ := strings.Cut(strings.TrimSuffix(filepath.Base(file), ".yaml"), "_")
		kube(ts, false, []string{"await", "apiextensions.k8s.io/v1/CustomResourceDefinition", plural + "." + group,
			`{.status.conditions[?(@.type=="Established")].status}`, "True"})
	}
}

func commit(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: commit FOLDER MESSAGE")
	}
	repos := ts.Value("repos").(map[string]*gittest.Repo)
	dir := ts.MkAbs(args[0])
	repo := repos[dir]
	if repo == nil {
		var err error
		repo, err = gittest.Create(dir)
		ts.Check(err)
		repos[dir] = repo
	}
	hash, err := repo.CommitFolder(args[1], dir)
	ts.Check(err)
	ts.Setenv("COMMIT", hash)
	ts.Logf("%s", hash)
}

// damage changes one bit in the middle of the first file of a folder.
func damage(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: damage FOLDER")
	}
	files, err := os.ReadDir(ts.MkAbs(args[0]))
	ts.Check(err)
	if len(files) == 0 {
		ts.Fatalf("%s is empty", args[0])
	}
	name := filepath.Join(ts.MkAbs(args[0]), files[0].Name())
	data, err := os.ReadFile(name)
	ts.Check(err)
	data[len(data)/2] ^= 1
	ts.Check(os.WriteFile(name, data, 0o600))
}

func exits(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exits CODE PROGRAM ARGS…")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	got := 0
	err = ts.Exec(args[1], args[2:]...)
	var exit *exec.ExitError
	switch {
	case errors.As(err, &exit):
		got = exit.ExitCode()
	case err != nil:
		ts.Fatalf("%v", err)
	}
	if got != want {
		ts.Fatalf("exit code %d, want %d", got, want)
	}
}

// stranger writes a kubeconfig for the cluster with credentials that it does not
// know.
func stranger(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: stranger FILE")
	}
	config, err := clientcmd.LoadFromFile(ts.Getenv("KUBECONFIG"))
	ts.Check(err)
	for name := range config.AuthInfos {
		config.AuthInfos[name] = &clientcmdapi.AuthInfo{Token: "nobody-knows-this"}
	}
	ts.Check(clientcmd.WriteToFile(*config, ts.MkAbs(args[0])))
}

// insecure writes a kubeconfig that does not check the server's certificate.
func insecure(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: insecure OLD FILE")
	}
	config, err := clientcmd.LoadFromFile(ts.MkAbs(args[0]))
	ts.Check(err)
	for _, cluster := range config.Clusters {
		cluster.CertificateAuthorityData, cluster.InsecureSkipTLSVerify = nil, true
	}
	ts.Check(clientcmd.WriteToFile(*config, ts.MkAbs(args[1])))
}

func copyRepo(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: copy REPO FOLDER")
	}
	ts.Check(os.CopyFS(ts.MkAbs(args[1]), os.DirFS(filepath.Join(ts.Getenv("TESTDATA"), "repos", args[0]))))
}

func rewrite(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 3 {
		ts.Fatalf("usage: rewrite FILE OLD NEW")
	}
	text := ts.ReadFile(args[0])
	if !strings.Contains(text, args[1]) {
		ts.Fatalf("%s does not contain %q", args[0], args[1])
	}
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), []byte(strings.ReplaceAll(text, args[1], args[2])), 0o644))
}

func kube(ts *testscript.TestScript, neg bool, args []string) {
	name := ""
	if len(args) > 0 && strings.HasPrefix(args[0], "@") {
		name, args = args[0][1:], args[1:]
	}
	c := ts.Value("clusters").(map[string]*kubetest.Cluster)[name]
	if c == nil {
		ts.Fatalf("no cluster %q: start one with the command cluster", name)
	}
	k, err := newKubeClient(c)
	ts.Check(err)
	ctx, cancel := context.WithTimeoutCause(context.Background(), time.Minute, errors.New("not so within a minute"))
	defer cancel()
	err = k.run(ctx, ts, args)
	switch {
	case neg && err == nil:
		ts.Fatalf("unexpected success")
	case neg && !apierrors.IsNotFound(err):
		ts.Fatalf("failed, but not because it does not exist: %v", err)
	case !neg:
		ts.Check(err)
	}
}

// kubeClient is a small kubectl for the scripts.
type kubeClient struct {
	client dynamic.Interface
	mapper meta.RESTMapper
	config *rest.Config
}

func newKubeClient(c *kubetest.Cluster) (*kubeClient, error) {
	d, err := discovery.NewDiscoveryClientForConfig(c.Config())
	if err != nil {
		return nil, err
	}
	client, err := dynamic.NewForConfig(c.Config())
	if err != nil {
		return nil, err
	}
	return &kubeClient{config: c.Config(), client: client, mapper: restmapper.NewDeferredDiscoveryRESTMapper(memory.NewMemCacheClient(d))}, nil
}

func (k *kubeClient) run(ctx context.Context, ts *testscript.TestScript, args []string) error {
	switch {
	case len(args) >= 3 && args[0] == "get":
		return k.get(ctx, ts.Stdout(), args[1], args[2], args[3:])
	case len(args) == 2 && args[0] == "apply":
		return k.apply(ctx, ts.ReadFile(args[1]))
	case len(args) == 3 && args[0] == "delete":
		resource, name, err := k.resource(args[1], args[2])
		if err != nil {
			return err
		}
		return resource.Delete(ctx, name, metav1.DeleteOptions{})
	case len(args) >= 4 && len(args) <= 5 && args[0] == "patch":
		resource, name, err := k.resource(args[1], args[2])
		if err != nil {
			return err
		}
		manager := slices.Concat(args[4:], []string{"kubectl-patch"})[0]
		_, err = resource.Patch(ctx, name, types.MergePatchType, []byte(args[3]), metav1.PatchOptions{FieldManager: manager})
		return err
	case len(args) == 2 && args[0] == "inventory":
		return k.inventory(ctx, ts.Stdout(), args[1])
	case len(args) == 4 && args[0] == "lease":
		return k.lease(ctx, args[1], args[2], args[3])
	case len(args) >= 2 && args[0] == "tokens":
		namespace, name, _ := strings.Cut(args[1], "/")
		data := map[string]string{"provider": "generic", "address": k.config.Host, "ca.crt": string(k.config.CAData)}
		for _, arg := range args[2:] {
			key, value, _ := strings.Cut(arg, "=")
			data[key] = value
		}
		text, err := json.Marshal(map[string]any{"apiVersion": "v1", "kind": "ConfigMap",
			"metadata": map[string]string{"namespace": namespace, "name": name}, "data": data})
		if err != nil {
			return err
		}
		return k.apply(ctx, string(text))
	case len(args) == 4 && args[0] == "secret":
		namespace, name, _ := strings.Cut(args[1], "/")
		return k.apply(ctx, fmt.Sprintf("apiVersion: v1\nkind: Secret\nmetadata: {namespace: %s, name: %s}\ndata: {%s: %s}\n",
			namespace, name, args[2], base64.StdEncoding.EncodeToString([]byte(ts.ReadFile(args[3])))))
	case len(args) == 3 && args[0] == "await":
		return k.await(ctx, args[1], args[2], "", "")
	case len(args) == 5 && args[0] == "await":
		return k.await(ctx, args[1], args[2], args[3], args[4])
	}
	return fmt.Errorf("usage: kube get|inventory|apply|patch|secret|tokens|delete|lease|await …, got %q", args)
}

// inventory prints a line for each object of a record: its id, uid, generation,
// labels, annotations, and who owns which of its fields. What controllers write to
// its status, at times of their own, is left out.
func (k *kubeClient) inventory(ctx context.Context, w io.Writer, name string) error {
	record, err := k.client.Resource(schema.GroupVersionResource{Version: "v1", Resource: "configmaps"}).Namespace("flux-system").
		Get(ctx, "sluice."+strings.ReplaceAll(name, "/", "."), metav1.GetOptions{})
	if err != nil {
		return err
	}
	text, _, _ := unstructured.NestedString(record.Object, "data", "inventory.json")
	var inventory struct{ Entries []struct{ ID, V string } }
	if err := json.Unmarshal([]byte(text), &inventory); err != nil {
		return err
	}
	for _, e := range inventory.Entries {
		id, err := object.ParseObjMetadata(e.ID)
		if err != nil {
			return err
		}
		kind, name := schema.GroupVersion{Group: id.GroupKind.Group, Version: e.V}.String()+"/"+id.GroupKind.Kind, id.Name
		if id.Namespace != "" {
			name = id.Namespace + "/" + name
		}
		resource, name, err := k.resource(kind, name)
		if err != nil {
			return err
		}
		o, err := resource.Get(ctx, name, metav1.GetOptions{})
		if err != nil {
			return err
		}
		managed := slices.DeleteFunc(o.GetManagedFields(), func(m metav1.ManagedFieldsEntry) bool { return m.Subresource == "status" })
		owners, err := json.Marshal(managed)
		if err != nil {
			return err
		}
		fmt.Fprintln(w, e.ID, e.V, o.GetUID(), o.GetGeneration(), o.GetLabels(), o.GetAnnotations(), string(owners))
	}
	return nil
}

// lease renews a Lease now.
func (k *kubeClient) lease(ctx context.Context, name, holder, seconds string) error {
	namespace, short, _ := strings.Cut(name, "/")
	return k.apply(ctx, fmt.Sprintf(`{apiVersion: coordination.k8s.io/v1, kind: Lease, metadata: {namespace: %s, name: %s},
spec: {holderIdentity: %q, leaseDurationSeconds: %s, renewTime: %q}}`, namespace, short, holder, seconds,
		time.Now().UTC().Format("2006-01-02T15:04:05.000000Z07:00")))
}

func (k *kubeClient) resource(kind, name string) (dynamic.ResourceInterface, string, error) {
	at := strings.LastIndex(kind, "/")
	if at < 0 {
		return nil, "", fmt.Errorf("kind %q is not of the form version/Kind or group/version/Kind", kind)
	}
	gv, err := schema.ParseGroupVersion(kind[:at])
	if err != nil {
		return nil, "", err
	}
	mapping, err := k.mapper.RESTMapping(gv.WithKind(kind[at+1:]).GroupKind(), gv.Version)
	if err != nil {
		return nil, "", err
	}
	namespace, rest, namespaced := strings.Cut(name, "/")
	if !namespaced {
		return k.client.Resource(mapping.Resource), name, nil
	}
	return k.client.Resource(mapping.Resource).Namespace(namespace), rest, nil
}

func (k *kubeClient) get(ctx context.Context, w io.Writer, kind, name string, path []string) error {
	resource, name, err := k.resource(kind, name)
	if err != nil {
		return err
	}
	o, err := resource.Get(ctx, name, metav1.GetOptions{})
	if err != nil {
		return err
	}
	if len(path) == 0 {
		unstructured.RemoveNestedField(o.Object, "metadata", "managedFields")
		text, err := json.MarshalIndent(o, "", "  ")
		fmt.Fprintf(w, "%s\n", text)
		return err
	}
	text, err := query(o, path[0])
	fmt.Fprintln(w, text)
	return err
}

func query(o *unstructured.Unstructured, path string) (string, error) {
	p := jsonpath.New("").AllowMissingKeys(true)
	if err := p.Parse(path); err != nil {
		return "", err
	}
	var text bytes.Buffer
	err := p.Execute(&text, o.Object)
	return text.String(), err
}

func (k *kubeClient) apply(ctx context.Context, text string) error {
	decoder := yaml.NewYAMLOrJSONDecoder(strings.NewReader(text), 4096)
	for {
		var o unstructured.Unstructured
		err := decoder.Decode(&o)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		name := o.GetName()
		if ns := o.GetNamespace(); ns != "" {
			name = ns + "/" + name
		}
		resource, name, err := k.resource(o.GetAPIVersion()+"/"+o.GetKind(), name)
		if err != nil {
			return err
		}
		body, err := o.MarshalJSON()
		if err != nil {
			return err
		}
		force := true
		if _, err := resource.Patch(ctx, name, types.ApplyPatchType, body, metav1.PatchOptions{FieldManager: "kubectl", Force: &force}); err != nil {
			return err
		}
	}
}

// await watches one object until it exists, or until the path has the value.
func (k *kubeClient) await(ctx context.Context, kind, name, path, value string) error {
	resource, name, err := k.resource(kind, name)
	if err != nil {
		return err
	}
	one := fields.OneTermEqualSelector("metadata.name", name).String()
	lw := &cache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) {
			o.FieldSelector = one
			return resource.List(ctx, o)
		},
		WatchFuncWithContext: func(ctx context.Context, o metav1.ListOptions) (watch.Interface, error) {
			o.FieldSelector = one
			return resource.Watch(ctx, o)
		},
	}
	var last error
	_, err = watchtools.UntilWithSync(ctx, lw, &unstructured.Unstructured{}, nil, func(e watch.Event) (bool, error) {
		o, ok := e.Object.(*unstructured.Unstructured)
		if !ok || e.Type == watch.Deleted {
			return false, nil
		}
		if path == "" {
			return true, nil
		}
		// An object may not have yet what the path goes through.
		text, err := query(o, path)
		last = err
		return err == nil && text == value, nil
	})
	if err != nil {
		return fmt.Errorf("awaiting %s %s %s %s: %w", kind, name, path, value, errors.Join(err, last))
	}
	return nil
}

// Every script must say in its first line what it shows.
func TestScriptsSayWhatTheyShow(t *testing.T) {
	files, err := filepath.Glob("../../testdata/script/*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatalf("no scripts found: %v", err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if !regexp.MustCompile(`^# \S`).Match(text) {
			t.Errorf("%s does not begin with a comment", file)
		}
	}
}
