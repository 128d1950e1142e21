package cli_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/fluxcd/cli-utils/pkg/kstatus/polling"
	"github.com/fluxcd/cli-utils/pkg/object"
	kustomizev1 "github.com/fluxcd/kustomize-controller/api/v1"
	fluxmeta "github.com/fluxcd/pkg/apis/meta"
	"github.com/fluxcd/pkg/ssa"
	"github.com/fluxcd/pkg/ssa/normalize"
	ssautil "github.com/fluxcd/pkg/ssa/utils"
	"github.com/rogpeppe/go-internal/testscript"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller/controllerutil"
	"sigs.k8s.io/kustomize/api/krusty"
	kustypes "sigs.k8s.io/kustomize/api/types"
	"sigs.k8s.io/kustomize/kyaml/filesys"
	"sigs.k8s.io/yaml"

	"github.com/sluicerun/sluice/internal/kubetest"
)

// fluxController does to one Kustomization object at a time what Flux's
// kustomize-controller does: with the same libraries, field manager, options,
// finalizer, inventory and status, and nothing of sluice. The scripts use it to
// leave a cluster as Flux does, and to let Flux come back. Its builds are those of
// plain folders: kustomize as it is, without variables.
type fluxController struct {
	client client.Client
	poller *polling.StatusPoller
	repo   fs.FS
	// revision is what the source's artifact has.
	revision string
	// log gets a line for each object that was applied or pruned.
	log io.Writer
}

const (
	fluxManager       = "kustomize-controller"
	fluxStatusManager = "gotk-kustomize-controller"
)

// flux lets Flux's controller look once at each of the Kustomizations given.
func flux(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 3 || args[0] != "reconcile" {
		ts.Fatalf("usage: flux reconcile REPO NAMESPACE/NAME…")
	}
	c := ts.Value("clusters").(map[string]*kubetest.Cluster)[""]
	if c == nil {
		ts.Fatalf("no cluster: start one with the command cluster")
	}
	controller, err := newFluxController(c.Config(), os.DirFS(ts.MkAbs(args[1])), "main@sha1:"+ts.Getenv("COMMIT"), ts.Stdout())
	ts.Check(err)
	ctx, cancel := context.WithTimeoutCause(context.Background(), time.Minute, errors.New("not reconciled within a minute"))
	defer cancel()
	for _, name := range args[2:] {
		ts.Check(controller.reconcile(ctx, name))
	}
}

func newFluxController(config *rest.Config, repo fs.FS, revision string, log io.Writer) (*fluxController, error) {
	scheme := runtime.NewScheme()
	if err := errors.Join(clientgoscheme.AddToScheme(scheme), kustomizev1.AddToScheme(scheme)); err != nil {
		return nil, err
	}
	c, err := client.New(config, client.Options{Scheme: scheme})
	if err != nil {
		return nil, err
	}
	poller := polling.NewStatusPoller(c, c.RESTMapper(), polling.Options{})
	return &fluxController{client: c, poller: poller, repo: repo, revision: revision, log: log}, nil
}

// reconcile is one look at a Kustomization (S0.1 to S0.21).
func (f *fluxController) reconcile(ctx context.Context, name string) error {
	namespace, short, _ := strings.Cut(name, "/")
	k := &kustomizev1.Kustomization{}
	if err := f.client.Get(ctx, client.ObjectKey{Namespace: namespace, Name: short}, k); err != nil {
		return client.IgnoreNotFound(err)
	}
	if !k.DeletionTimestamp.IsZero() {
		return f.finalize(ctx, k)
	}
	if !controllerutil.ContainsFinalizer(k, kustomizev1.KustomizationFinalizer) {
		before := k.DeepCopy()
		controllerutil.AddFinalizer(k, kustomizev1.KustomizationFinalizer)
		if err := f.client.Patch(ctx, k, client.MergeFrom(before), client.FieldOwner(fluxStatusManager)); err != nil {
			return err
		}
	}
	if k.Spec.Suspend {
		fmt.Fprintf(f.log, "%s: suspended\n", name)
		return nil
	}
	objects, err := f.build(k)
	if err != nil {
		return fmt.Errorf("build %s: %w", name, err)
	}
	manager := ssa.NewResourceManager(f.client, f.poller, ssa.Owner{Field: fluxManager, Group: kustomizev1.GroupVersion.Group})
	manager.SetOwnerLabels(objects, k.Name, k.Namespace)
	if err := normalize.UnstructuredList(objects); err != nil {
		return err
	}
	if m := k.Spec.CommonMetadata; m != nil {
		ssautil.SetCommonMetadata(objects, m.Labels, m.Annotations)
	}
	changes := ssa.NewChangeSet()
	if len(objects) > 0 {
		if changes, err = manager.ApplyAllStaged(ctx, objects, f.options(k)); err != nil {
			return fmt.Errorf("apply %s: %w", name, err)
		}
	}
	before := k.DeepCopy()
	old := k.Status.Inventory
	k.Status.Inventory = &kustomizev1.ResourceInventory{Entries: []kustomizev1.ResourceRef{}}
	applied := map[string]bool{}
	for _, e := range changes.Entries {
		fmt.Fprintf(f.log, "%s: %s\n", name, e)
		applied[e.ObjMetadata.String()] = true
		k.Status.Inventory.Entries = append(k.Status.Inventory.Entries, kustomizev1.ResourceRef{ID: e.ObjMetadata.String(), Version: e.GroupVersion})
	}
	if old != nil && k.Spec.Prune {
		stale := slices.DeleteFunc(slices.Clone(old.Entries), func(e kustomizev1.ResourceRef) bool { return applied[e.ID] })
		if err := f.prune(ctx, manager, k, stale); err != nil {
			return err
		}
	}
	k.Status.LastAttemptedRevision, k.Status.LastAppliedRevision = f.revision, f.revision
	k.Status.ObservedGeneration = k.Generation
	meta.SetStatusCondition(&k.Status.Conditions, metav1.Condition{Type: fluxmeta.ReadyCondition, Status: metav1.ConditionTrue,
		ObservedGeneration: k.Generation, Reason: fluxmeta.ReconciliationSucceededReason, Message: "Applied revision: " + f.revision})
	return f.client.Status().Patch(ctx, k, client.MergeFrom(before), client.FieldOwner(fluxStatusManager))
}

// build is what the path of a Kustomization holds (S2.3).
func (f *fluxController) build(k *kustomizev1.Kustomization) ([]*unstructured.Unstructured, error) {
	memory := filesys.MakeFsInMemory()
	folder := path.Clean(strings.TrimPrefix(k.Spec.Path, "./"))
	file := kustypes.Kustomization{NamePrefix: k.Spec.NamePrefix, NameSuffix: k.Spec.NameSuffix, Namespace: k.Spec.TargetNamespace}
	own := false
	err := fs.WalkDir(f.repo, ".", func(name string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			if entry != nil && entry.Name() == ".git" {
				return fs.SkipDir
			}
			return err
		}
		text, err := fs.ReadFile(f.repo, name)
		if err != nil {
			return err
		}
		if below, ok := strings.CutPrefix(name, folder+"/"); ok && path.Ext(name) == ".yaml" {
			own = own || below == "kustomization.yaml"
			file.Resources = append(file.Resources, below)
		}
		return memory.WriteFile("/"+name, text)
	})
	if err != nil {
		return nil, err
	}
	if !own {
		text, err := yaml.Marshal(file)
		if err != nil {
			return nil, err
		}
		if err := memory.WriteFile("/"+folder+"/kustomization.yaml", text); err != nil {
			return nil, err
		}
	}
	built, err := krusty.MakeKustomizer(krusty.MakeDefaultOptions()).Run(memory, "/"+folder)
	if err != nil {
		return nil, err
	}
	text, err := built.AsYaml()
	if err != nil {
		return nil, err
	}
	return ssautil.ReadObjects(bytes.NewReader(text))
}

// options are those of the controller (S4.24, S4.25, S4.28).
func (f *fluxController) options(k *kustomizev1.Kustomization) ssa.ApplyOptions {
	group := kustomizev1.GroupVersion.Group
	options := ssa.DefaultApplyOptions()
	options.Force = k.Spec.Force
	options.ExclusionSelector = map[string]string{group + "/reconcile": kustomizev1.DisabledValue, group + "/ssa": kustomizev1.IgnoreValue}
	options.IfNotPresentSelector = map[string]string{group + "/ssa": kustomizev1.IfNotPresentValue}
	options.ForceSelector = map[string]string{group + "/force": kustomizev1.EnabledValue}
	options.Cleanup = ssa.ApplyCleanupOptions{
		Annotations: []string{corev1.LastAppliedConfigAnnotation, group + "/checksum", "fluxcd.io/sync-checksum"},
		Labels:      []string{"fluxcd.io/sync-gc-mark"},
		FieldManagers: []ssa.FieldManager{
			{Name: "kubectl", OperationType: metav1.ManagedFieldsOperationApply},
			{Name: "kubectl", OperationType: metav1.ManagedFieldsOperationUpdate},
			{Name: "before-first-apply", OperationType: metav1.ManagedFieldsOperationUpdate},
			{Name: fluxManager, OperationType: metav1.ManagedFieldsOperationUpdate},
		},
		Exclusions: map[string]string{group + "/ssa": kustomizev1.MergeValue},
	}
	return options
}

// prune deletes what belongs to the Kustomization and is not protected (S5.7 to
// S5.11).
func (f *fluxController) prune(ctx context.Context, manager *ssa.ResourceManager, k *kustomizev1.Kustomization, stale []kustomizev1.ResourceRef) error {
	var objects []*unstructured.Unstructured
	for _, e := range stale {
		id, err := object.ParseObjMetadata(e.ID)
		if err != nil {
			return err
		}
		o := &unstructured.Unstructured{}
		o.SetGroupVersionKind(schema.GroupVersionKind{Group: id.GroupKind.Group, Version: e.Version, Kind: id.GroupKind.Kind})
		o.SetNamespace(id.Namespace)
		o.SetName(id.Name)
		objects = append(objects, o)
	}
	group := kustomizev1.GroupVersion.Group
	changes, err := manager.DeleteAll(ctx, objects, ssa.DeleteOptions{
		PropagationPolicy: metav1.DeletePropagationBackground,
		Inclusions:        manager.GetOwnerLabels(k.Name, k.Namespace),
		Exclusions: map[string]string{group + "/prune": kustomizev1.DisabledValue, group + "/reconcile": kustomizev1.DisabledValue,
			group + "/ssa": kustomizev1.IgnoreValue},
	})
	for _, e := range changes.Entries {
		fmt.Fprintf(f.log, "%s/%s: %s\n", k.Namespace, k.Name, e)
	}
	return err
}

// finalize is the end of a Kustomization object (S5.17).
func (f *fluxController) finalize(ctx context.Context, k *kustomizev1.Kustomization) error {
	deletes := k.Spec.Prune
	switch k.GetDeletionPolicy() {
	case kustomizev1.DeletionPolicyDelete, kustomizev1.DeletionPolicyWaitForTermination:
		deletes = true
	case kustomizev1.DeletionPolicyOrphan:
		deletes = false
	}
	if deletes && !k.Spec.Suspend && k.Status.Inventory != nil {
		manager := ssa.NewResourceManager(f.client, nil, ssa.Owner{Field: fluxManager, Group: kustomizev1.GroupVersion.Group})
		if err := f.prune(ctx, manager, k, k.Status.Inventory.Entries); err != nil {
			return err
		}
	}
	fmt.Fprintf(f.log, "%s/%s: finalized\n", k.Namespace, k.Name)
	before := k.DeepCopy()
	controllerutil.RemoveFinalizer(k, kustomizev1.KustomizationFinalizer)
	return f.client.Patch(ctx, k, client.MergeFrom(before), client.FieldOwner(fluxStatusManager))
}
