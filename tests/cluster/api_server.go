// Kubernetes' API server reduced to custom resources: it serves CustomResourceDefinitions and what
// they define, with the real checks of their schemas. Nobody has to log in, so it belongs on the
// loopback, in tests.
package main

import (
	"fmt"
	"net"
	"net/url"
	"os"

	"github.com/spf13/pflag"
	"go.opentelemetry.io/otel/trace/noop"
	"k8s.io/apiextensions-apiserver/pkg/apiserver"
	"k8s.io/apiextensions-apiserver/pkg/cmd/server/options"
	definitions "k8s.io/apiextensions-apiserver/pkg/generated/openapi"
	"k8s.io/apiserver/pkg/endpoints/openapi"
	"k8s.io/apiserver/pkg/server"
	serveroptions "k8s.io/apiserver/pkg/server/options"
	utilopenapi "k8s.io/apiserver/pkg/util/openapi"
	"k8s.io/apiserver/pkg/util/webhook"
	"k8s.io/client-go/kubernetes/scheme"
)

// noWebhooks stands for the services of a cluster that webhooks are reached by.
type noWebhooks struct{}

func (noWebhooks) ResolveEndpoint(namespace, name string, port int32) (*url.URL, error) {
	return nil, fmt.Errorf("there is no service %s/%s here", namespace, name)
}

// flags reads etcd's address, the port and the folder of the certificate.
func flags(arguments []string) (*options.CustomResourceDefinitionsServerOptions, error) {
	all := options.NewCustomResourceDefinitionsServerOptions(os.Stdout, os.Stderr)
	set := pflag.NewFlagSet("crdserver", pflag.ContinueOnError)
	all.AddFlags(set)
	if err := set.Parse(arguments); err != nil {
		return nil, err
	}
	// What needs a whole cluster beside it.
	own := all.RecommendedOptions
	own.Authentication, own.Authorization, own.CoreAPI, own.Admission = nil, nil, nil, nil
	own.Features = serveroptions.NewFeatureOptions()
	own.Features.EnablePriorityAndFairness = false
	if err := all.Complete(); err != nil {
		return nil, err
	}
	loopback := []net.IP{net.ParseIP("127.0.0.1")}
	return all, own.SecureServing.MaybeDefaultWithSelfSignedCerts("localhost", nil, loopback)
}

func configuration(all *options.CustomResourceDefinitionsServerOptions) (*apiserver.Config, error) {
	generic := server.NewRecommendedConfig(apiserver.Codecs)
	if err := all.ServerRunOptions.ApplyTo(&generic.Config); err != nil {
		return nil, err
	}
	if err := all.RecommendedOptions.ApplyTo(generic); err != nil {
		return nil, err
	}
	resources := apiserver.DefaultAPIResourceConfigSource()
	if err := all.APIEnablement.ApplyTo(&generic.Config, resources, apiserver.Scheme); err != nil {
		return nil, err
	}
	described := utilopenapi.GetOpenAPIDefinitionsWithoutDisabledFeatures(definitions.GetOpenAPIDefinitions)
	names := openapi.NewDefinitionNamer(apiserver.Scheme, scheme.Scheme)
	generic.OpenAPIConfig = server.DefaultOpenAPIConfig(described, names)
	generic.OpenAPIV3Config = server.DefaultOpenAPIV3Config(described, names)
	return &apiserver.Config{
		GenericConfig: generic,
		ExtraConfig: apiserver.ExtraConfig{
			CRDRESTOptionsGetter: options.NewCRDRESTOptionsGetter(
				*all.RecommendedOptions.Etcd, generic.ResourceTransformers, generic.StorageObjectCountTracker),
			ServiceResolver: noWebhooks{},
			AuthResolverWrapper: webhook.NewDefaultAuthenticationInfoResolverWrapper(
				nil, nil, generic.LoopbackClientConfig, noop.NewTracerProvider()),
		},
	}, nil
}

func run(arguments []string) error {
	stopped := server.SetupSignalContext()
	all, err := flags(arguments)
	if err != nil {
		return err
	}
	config, err := configuration(all)
	if err != nil {
		return err
	}
	completed := config.Complete()
	completed.GenericConfig.EnableDiscovery = true // in a cluster the aggregator does it
	served, err := completed.New(server.NewEmptyDelegate())
	if err != nil {
		return err
	}
	return served.GenericAPIServer.PrepareRun().RunWithContext(stopped)
}

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
