// Command protogen turns proto/holdfast/**/*.proto into the Go packages under
// proto/, with nothing installed but Go: the compiler is a library, the
// generators are tools pinned in this module's go.mod.
//
// Called by make proto. Its test generates again and wants no difference, so
// what is checked in is always what the .proto files say.
package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"github.com/bufbuild/protocompile"
	"github.com/bufbuild/protocompile/linker"
	"github.com/bufbuild/protocompile/protoutil"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/pluginpb"
)

const module = "github.com/holdfast-db/holdfast"

// plugins are the generators, each with its parameter. All messages get the
// aliasing unmarshal as well: the codec gives each message a buffer of its own.
var plugins = []struct{ tool, parameter string }{
	{"protoc-gen-go", "module=" + module},
	{"protoc-gen-go-grpc", "module=" + module},
	{"protoc-gen-go-vtproto", "module=" + module + ",features=marshal+unmarshal+unmarshal_unsafe+size"},
	{"protoc-gen-grpc-gateway", "module=" + module + ",standalone=true,grpc_api_configuration=" + routes},
	{"protoc-gen-openapiv2", "allow_merge=true,merge_file_name=openapi,json_names_for_fields=false,openapi_naming_strategy=fqn,grpc_api_configuration=" + routes},
}

// routes says which RPC has which URL, seen from tools/.
const routes = "../proto/holdfast/gateway.yaml"

// withoutRoutes says which files have no JSON: the scheduler layer's own API.
func withoutRoutes(file string) bool { return strings.HasPrefix(file, "holdfast/kubepb/") }

// gatewayDir is where the gateway's code goes: clients do not carry it.
const gatewayDir = "proto/gateway/"

func main() {
	root := flag.String("root", "..", "top folder of the repository; the tools module lies beside it in tools/")
	flag.Parse()
	if err := run(*root); err != nil {
		fmt.Fprintln(os.Stderr, "protogen:", err)
		os.Exit(1)
	}
}

// run replaces all generated files under root/proto.
func run(root string) error {
	files, err := generate(root)
	if err != nil {
		return err
	}
	old, err := generated(root)
	if err != nil {
		return err
	}
	for _, path := range old {
		if _, ok := files[path]; !ok {
			if err := os.Remove(filepath.Join(root, path)); err != nil {
				return err
			}
		}
	}
	for path, content := range files {
		path = filepath.Join(root, path)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(path, content, 0o644); err != nil {
			return err
		}
	}
	return nil
}

// generate returns the content of every generated file by its path from root.
func generate(root string) (map[string][]byte, error) {
	request, err := compile(filepath.Join(root, "proto"))
	if err != nil {
		return nil, err
	}
	files := make(map[string][]byte)
	all := request.FileToGenerate
	for _, p := range plugins {
		request.Parameter, request.FileToGenerate = proto.String(p.parameter), all
		if strings.Contains(p.parameter, routes) {
			request.FileToGenerate = slices.DeleteFunc(slices.Clone(all), withoutRoutes)
		}
		response, err := runPlugin(filepath.Join(root, "tools"), p.tool, request)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", p.tool, err)
		}
		for _, f := range response.File {
			files[placeOf(f.GetName())] = []byte(f.GetContent())
		}
	}
	return files, nil
}

// placeOf is the path from root of a file that a plugin names.
func placeOf(name string) string {
	switch {
	case name == "openapi.swagger.json":
		return gatewayDir + "openapi.json"
	case strings.HasSuffix(name, ".pb.gw.go"):
		return gatewayDir + strings.TrimPrefix(name, "proto/")
	}
	return name
}

func isGenerated(path string) bool {
	return strings.HasSuffix(path, ".pb.go") || strings.HasSuffix(path, ".pb.gw.go") || filepath.Base(path) == "openapi.json"
}

// generated lists the generated files that are there now, as paths from root.
func generated(root string) ([]string, error) {
	var found []string
	err := filepath.WalkDir(filepath.Join(root, "proto"), func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !isGenerated(path) {
			return err
		}
		path, err = filepath.Rel(root, path)
		found = append(found, filepath.ToSlash(path))
		return err
	})
	return found, err
}

// compile reads all sources below dir/holdfast; import paths start at dir.
func compile(dir string) (*pluginpb.CodeGeneratorRequest, error) {
	var names []string
	err := filepath.WalkDir(filepath.Join(dir, "holdfast"), func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(path, ".proto") {
			return err
		}
		path, err = filepath.Rel(dir, path)
		names = append(names, filepath.ToSlash(path))
		return err
	})
	if err != nil {
		return nil, err
	}
	slices.Sort(names)

	compiler := protocompile.Compiler{
		Resolver:       protocompile.WithStandardImports(&protocompile.SourceResolver{ImportPaths: []string{dir}}),
		SourceInfoMode: protocompile.SourceInfoStandard, // Comments reach the generated code.
	}
	compiled, err := compiler.Compile(context.Background(), names...)
	if err != nil {
		return nil, err
	}
	return request(names, compiled), nil
}

// request lists all files, each after those it imports, as plugins want them.
func request(names []string, files linker.Files) *pluginpb.CodeGeneratorRequest {
	r := &pluginpb.CodeGeneratorRequest{FileToGenerate: names}
	seen := make(map[string]bool)
	var add func(protoreflect.FileDescriptor)
	add = func(f protoreflect.FileDescriptor) {
		if seen[f.Path()] {
			return
		}
		seen[f.Path()] = true
		for i := range f.Imports().Len() {
			add(f.Imports().Get(i).FileDescriptor)
		}
		r.ProtoFile = append(r.ProtoFile, protoutil.ProtoFromFileDescriptor(f))
	}
	for _, f := range files {
		add(f)
	}
	return r
}

// runPlugin speaks protoc's plugin protocol with one of this module's tools.
func runPlugin(dir, tool string, request *pluginpb.CodeGeneratorRequest) (*pluginpb.CodeGeneratorResponse, error) {
	in, err := proto.Marshal(request)
	if err != nil {
		return nil, err
	}
	var out bytes.Buffer
	cmd := exec.Command("go", "tool", tool)
	cmd.Dir, cmd.Stdin, cmd.Stdout, cmd.Stderr = dir, bytes.NewReader(in), &out, os.Stderr
	if err := cmd.Run(); err != nil {
		return nil, err
	}
	response := new(pluginpb.CodeGeneratorResponse)
	if err := proto.Unmarshal(out.Bytes(), response); err != nil {
		return nil, err
	}
	if response.Error != nil {
		return nil, errors.New(response.GetError())
	}
	return response, nil
}
