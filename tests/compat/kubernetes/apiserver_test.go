package kubernetes

import (
	"context"
	"errors"
	"net"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/apiserver/pkg/apis/example"
	exampleinstall "k8s.io/apiserver/pkg/apis/example/install"
	examplev1 "k8s.io/apiserver/pkg/apis/example/v1"
	"k8s.io/apiserver/pkg/authorization/authorizerfactory"
	openapinamer "k8s.io/apiserver/pkg/endpoints/openapi"
	"k8s.io/apiserver/pkg/registry/generic"
	"k8s.io/apiserver/pkg/registry/generic/registry"
	"k8s.io/apiserver/pkg/registry/rest"
	"k8s.io/apiserver/pkg/server"
	"k8s.io/apiserver/pkg/server/options"
	"k8s.io/apiserver/pkg/storage"
	"k8s.io/apiserver/pkg/storage/names"
	"k8s.io/apiserver/pkg/storage/storagebackend"
	restclient "k8s.io/client-go/rest"
	basecompatibility "k8s.io/component-base/compatibility"
	"k8s.io/kube-openapi/pkg/common"
	"k8s.io/kube-openapi/pkg/validation/spec"

	"github.com/holdfast-db/holdfast/tests/compat/member"
)

// registryPrefix is where an API server keeps all of its objects.
const registryPrefix = "/registry"

// resources are what the API server serves: pods, and again pods by another
// name, which it keeps and caches by themselves.
var resources = []string{"pods", "templates"}

// startAPIServer runs an API server with two resources whose objects lie in a
// cluster, and returns how its own clients reach it. It stops with the test.
func startAPIServer(t *testing.T, cluster *member.Cluster, compaction time.Duration) *restclient.Config {
	t.Helper()
	scheme := runtime.NewScheme()
	metav1.AddToGroupVersion(scheme, schema.GroupVersion{Version: "v1"})
	exampleinstall.Install(scheme)
	scheme.AddKnownTypes(example.SchemeGroupVersion, &example.PodList{})
	scheme.AddKnownTypes(examplev1.SchemeGroupVersion, &examplev1.PodList{})
	codecs := serializer.NewCodecFactory(scheme)

	cfg := server.NewConfig(codecs)
	cfg.EffectiveVersion = basecompatibility.NewEffectiveVersionFromString("1.37", "", "")
	cfg.OpenAPIV3Config = server.DefaultOpenAPIV3Config(definitions, openapinamer.NewDefinitionNamer(scheme))
	cfg.SkipOpenAPIInstallation = true
	cfg.Authentication.Authenticator = server.InsecureSuperuser{}
	cfg.Authorization.Authorizer = authorizerfactory.NewAlwaysAllowAuthorizer()
	serve(t, cfg)

	stored := storagebackend.NewDefaultConfig(registryPrefix, codecs.LegacyCodec(examplev1.SchemeGroupVersion))
	stored.CompactionInterval = compaction
	stored.Transport.ServerList = cluster.Endpoints()
	stored.Transport.CertFile, stored.Transport.KeyFile = cluster.Certs.Client, cluster.Certs.ClientKey
	stored.Transport.TrustedCAFile = cluster.Certs.CA
	if err := options.NewEtcdOptions(stored).ApplyTo(cfg); err != nil {
		t.Fatal(err)
	}
	s, err := cfg.Complete(nil).New("holdfast", server.NewEmptyDelegate())
	if err != nil {
		t.Fatal(err)
	}
	group := server.NewDefaultAPIGroupInfo(example.GroupName, scheme, runtime.NewParameterCodec(scheme), codecs)
	all := map[string]rest.Storage{}
	for _, name := range resources {
		all[name] = newRegistry(t, scheme, cfg.RESTOptionsGetter, name)
	}
	group.VersionedResourcesStorageMap["v1"] = all
	if err := s.InstallAPIGroup(&group); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.PrepareRun().RunWithContext(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("the API server: %v", err)
		}
	})
	return cfg.LoopbackClientConfig
}

// serve makes the API server listen, with a certificate for its own clients.
func serve(t *testing.T, cfg *server.Config) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	secure := options.NewSecureServingOptions()
	secure.Listener, secure.BindPort, secure.ServerCert.CertDirectory = l, l.Addr().(*net.TCPAddr).Port, t.TempDir()
	if err := errors.Join(
		secure.MaybeDefaultWithSelfSignedCerts("localhost", nil, []net.IP{net.IPv4(127, 0, 0, 1)}),
		secure.WithLoopback().ApplyTo(&cfg.SecureServing, &cfg.LoopbackClientConfig),
	); err != nil {
		t.Fatal(err)
	}
	cfg.ExternalAddress = l.Addr().String()
}

// newRegistry is the part of an API server that knows one resource.
func newRegistry(t *testing.T, scheme *runtime.Scheme, getter generic.RESTOptionsGetter, resource string) *registry.Store {
	of := example.Resource(resource)
	how := strategy{scheme, names.SimpleNameGenerator}
	store := &registry.Store{
		NewFunc:                  func() runtime.Object { return &example.Pod{} },
		NewListFunc:              func() runtime.Object { return &example.PodList{} },
		DefaultQualifiedResource: of, SingularQualifiedResource: example.Resource(strings.TrimSuffix(resource, "s")),
		CreateStrategy: how, UpdateStrategy: how, DeleteStrategy: how,
		ReturnDeletedObject: true, // It carries the revision of the deletion.
		TableConvertor:      rest.NewDefaultTableConvertor(of),
		PredicateFunc: func(l labels.Selector, f fields.Selector) storage.SelectionPredicate {
			return storage.SelectionPredicate{Label: l, Field: f, GetAttrs: attributes}
		},
	}
	if err := store.CompleteWithOptions(&generic.StoreOptions{RESTOptions: getter, AttrFunc: attributes}); err != nil {
		t.Fatal(err)
	}
	return store
}

func attributes(o runtime.Object) (labels.Set, fields.Set, error) {
	m := o.(metav1.ObjectMetaAccessor).GetObjectMeta()
	return m.GetLabels(), fields.Set{"metadata.name": m.GetName(), "metadata.namespace": m.GetNamespace()}, nil
}

// strategy lets everything pass: the load is about the store.
type strategy struct {
	runtime.ObjectTyper
	names.NameGenerator
}

func (strategy) NamespaceScoped() bool                                                 { return true }
func (strategy) AllowCreateOnUpdate(context.Context) bool                              { return false }
func (strategy) AllowUnconditionalUpdate(context.Context) bool                         { return true }
func (strategy) Canonicalize(runtime.Object)                                           {}
func (strategy) PrepareForCreate(context.Context, runtime.Object)                      {}
func (strategy) PrepareForUpdate(_ context.Context, _, _ runtime.Object)               {}
func (strategy) Validate(context.Context, runtime.Object) field.ErrorList              { return nil }
func (strategy) ValidateUpdate(_ context.Context, _, _ runtime.Object) field.ErrorList { return nil }
func (strategy) WarningsOnCreate(context.Context, runtime.Object) []string             { return nil }
func (strategy) WarningsOnUpdate(_ context.Context, _, _ runtime.Object) []string      { return nil }

// definitions are the schemas by which an API server merges patches: this one
// says which kind it is of, and nothing of its fields.
func definitions(common.ReferenceCallback) map[string]common.OpenAPIDefinition {
	return map[string]common.OpenAPIDefinition{examplev1.Pod{}.OpenAPIModelName(): {Schema: spec.Schema{
		SchemaProps: spec.SchemaProps{Type: []string{"object"}},
		VendorExtensible: spec.VendorExtensible{Extensions: spec.Extensions{
			"x-kubernetes-preserve-unknown-fields": true,
			"x-kubernetes-group-version-kind":      []any{map[string]any{"group": example.GroupName, "version": "v1", "kind": "Pod"}},
		}},
	}}}
}
