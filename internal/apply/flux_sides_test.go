package apply_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/fluxcd/cli-utils/pkg/kstatus/polling"
	"github.com/fluxcd/pkg/ssa"
	"github.com/fluxcd/pkg/ssa/jsondiff"
	"github.com/fluxcd/pkg/ssa/normalize"
	"github.com/fluxcd/pkg/ssa/utils"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	"github.com/sluicerun/sluice/internal/apply"
	"github.com/sluicerun/sluice/internal/build"
	"github.com/sluicerun/sluice/internal/flux"
	"github.com/sluicerun/sluice/internal/health"
	"github.com/sluicerun/sluice/internal/plan"
)

// fill puts in what a scenario's variables stand for.
func fill(namespace, text string) string {
	return strings.NewReplacer("$NS", namespace, "$CA", authority()).Replace(text)
}

// authority is a certificate as manifests hold it, in base64.
var authority = sync.OnceValue(func() string {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		panic(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true}
	certificate, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		panic(err)
	}
	return base64.StdEncoding.EncodeToString(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: certificate}))
})

// manifests are the objects of a step in a namespace.
func manifests(t *testing.T, c client.Client, namespace, text string) []*unstructured.Unstructured {
	t.Helper()
	objects, err := utils.ReadObjects(strings.NewReader(fill(namespace, text)))
	if err != nil {
		t.Fatal(err)
	}
	for _, o := range objects {
		if namespaced, err := c.IsObjectNamespaced(o); o.GetNamespace() == "" && err == nil && namespaced {
			o.SetNamespace(namespace)
		}
	}
	return objects
}

// runSluice does to the objects of one Kustomization what a run does.
func runSluice(ctx context.Context, objects []*unstructured.Unstructured, s settings) (map[string]string, error) {
	k := &flux.Kustomization{ID: flux.ID{Namespace: "flux-system", Name: "apps"}, Spec: s.Spec}
	var list []flux.Object
	for _, o := range objects {
		list = append(list, flux.Object{Unstructured: o})
	}
	labelled, err := build.Label(k, list)
	if err != nil {
		return nil, err
	}
	prepared, _, err := plan.Normalize(labelled)
	if err != nil {
		return nil, err
	}
	options := apply.Options{Force: s.Spec.Force, Ignore: apply.IgnoreRules(s.Spec), OverrideManagers: s.OverrideManagers, MigrateAPIVersion: s.MigrateAPIVersion}
	if s.CustomStageKinds != "" {
		if options.CustomStageKinds, err = apply.ParseKinds(s.CustomStageKinds); err != nil {
			return nil, err
		}
	}
	user := ""
	if s.Spec.ServiceAccountName != "" {
		return nil, errors.New("no scenario impersonates")
	}
	as := func(n *plan.Node) (client.WithWatch, error) { return connection.cluster.Client(n.User) }
	made, err := plan.Make(ctx, plan.Options{Client: as, Owner: apply.Owner()}, []plan.Node{{
		ID: k.ID, User: user, Objects: prepared, Rules: plan.Rules{SSA: options.SSA(), Recreate: options.Recreate},
	}})
	if err != nil {
		return nil, err
	}
	c, err := connection.cluster.Client(user)
	if err != nil {
		return nil, err
	}
	options.StageWait = func(ctx context.Context, refs []flux.Ref) error {
		clients, err := health.NewClients(connection.cluster.Config(user), nil, connection.cluster.Mapper())
		if err != nil {
			return err
		}
		targets := make([]health.Target, len(refs))
		for i, ref := range refs {
			targets[i].Ref = ref
		}
		hub := health.NewHub(clients, func(err error) { panic(err) })
		defer hub.Close()
		_, err = hub.Wait(ctx, targets, health.Options{FailFast: true})
		return err
	}
	results, err := apply.Apply(ctx, made.Client(k.ID, c), prepared, options)
	actions := map[string]string{}
	for _, r := range results {
		actions[r.Ref.String()] = string(r.Action)
		if r.Action == apply.Recreated {
			actions[r.Ref.String()] = "created" // which is what Flux calls it
		}
	}
	return actions, err
}

// runFlux does what kustomize-controller does, from the reading of the build's
// output to the end of the apply.
func runFlux(ctx context.Context, c client.Client, objects []*unstructured.Unstructured, s settings) (map[string]string, error) {
	const group = "kustomize.toolkit.fluxcd.io"
	manager := ssa.NewResourceManager(c, polling.NewStatusPoller(c, c.RESTMapper(), polling.Options{}), ssa.Owner{Field: "kustomize-controller", Group: group})
	manager.SetConcurrency(4)
	// The build's output is text, whatever made it.
	var text bytes.Buffer
	for _, o := range objects {
		body, err := yaml.Marshal(o.Object)
		if err != nil {
			return nil, err
		}
		fmt.Fprintf(&text, "---\n%s", body)
	}
	objects, err := utils.ReadObjects(&text)
	if err != nil {
		return nil, err
	}
	manager.SetOwnerLabels(objects, "apps", "flux-system")
	if err := normalize.UnstructuredList(objects); err != nil {
		return nil, err
	}
	if common := s.Spec.CommonMetadata; common != nil {
		utils.SetCommonMetadata(objects, common.Labels, common.Annotations)
	}
	o := ssa.DefaultApplyOptions()
	o.WaitInterval = 200 * time.Millisecond // a test need not wait as long
	o.Force = s.Spec.Force
	o.ExclusionSelector = map[string]string{group + "/reconcile": "disabled", group + "/ssa": "Ignore"}
	o.IfNotPresentSelector = map[string]string{group + "/ssa": "IfNotPresent"}
	o.ForceSelector = map[string]string{group + "/force": "enabled"}
	o.MigrateAPIVersion = s.MigrateAPIVersion
	if o.CustomStageKinds, err = utils.ParseGroupKindSet(s.CustomStageKinds); err != nil {
		return nil, err
	}
	for _, rule := range s.Spec.Ignore {
		r := jsondiff.IgnoreRule{Paths: rule.Paths}
		if target := rule.Target; target != nil {
			r.Selector = &jsondiff.Selector{Group: target.Group, Version: target.Version, Kind: target.Kind, Name: target.Name, Namespace: target.Namespace,
				AnnotationSelector: target.AnnotationSelector, LabelSelector: target.LabelSelector}
		}
		o.DriftIgnoreRules = append(o.DriftIgnoreRules, r)
	}
	update, serverSide := metav1.ManagedFieldsOperationUpdate, metav1.ManagedFieldsOperationApply
	managers := []ssa.FieldManager{{Name: "kubectl", OperationType: serverSide}, {Name: "kubectl", OperationType: update},
		{Name: "before-first-apply", OperationType: update}, {Name: "kustomize-controller", OperationType: update}}
	for _, name := range s.OverrideManagers {
		managers = append(managers, ssa.FieldManager{Name: name, OperationType: serverSide}, ssa.FieldManager{Name: name, OperationType: update})
	}
	o.Cleanup = ssa.ApplyCleanupOptions{
		Annotations:   []string{corev1.LastAppliedConfigAnnotation, group + "/checksum", "fluxcd.io/sync-checksum"},
		Labels:        []string{"fluxcd.io/sync-gc-mark"},
		FieldManagers: managers,
		Exclusions:    map[string]string{group + "/ssa": "Merge"},
	}
	changes, err := manager.ApplyAllStaged(ctx, objects, o)
	actions := map[string]string{}
	if changes != nil {
		for _, entry := range changes.Entries {
			actions[entry.Subject] = string(entry.Action)
		}
	}
	return actions, err
}
