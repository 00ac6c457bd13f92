package metadata

import (
	"context"
	"errors"
	"strings"

	"github.com/mustermetal/muster/pkg/shape"
)

// ec2Service is a tree of small texts below meta-data/: Tinkerbell's Tootles,
// hollow-metadataservice, EC2 and its likes. EC2 itself wants a token (IMDSv2);
// services that know none are asked without.
type ec2Service struct{ service }

func newEC2(base string) ec2Service {
	return ec2Service{service{base: base, token: &token{
		path: "/latest/api/token", ttlHeader: "X-aws-ec2-metadata-token-ttl-seconds", header: "X-aws-ec2-metadata-token", optional: true,
	}}}
}

// ec2Versions are tried in order. The second is the only one that Tootles and
// hollow-metadataservice have; EC2 shows tags in later ones.
var ec2Versions = []string{"/latest/meta-data/", "/2009-04-04/meta-data/"}

// ec2Leaves are read where they are; no service has all of them.
var ec2Leaves = []string{"local-hostname", "hostname", "local-ipv4", "public-ipv4", "public-ipv6", "ipv6", "mac"}

// maxTags bounds the requests for tags that are leaves of their own; EC2 allows 50.
const maxTags = 50

func (s ec2Service) fetch(ctx context.Context) (found, error) {
	f := found{docs: shape.Documents{}}
	header, err := s.open(ctx)
	if err != nil {
		return f, err
	}
	tree := ec2Versions[0]
	id, err := s.get(ctx, tree+"instance-id", header)
	if errors.Is(err, errAbsent) {
		tree = ec2Versions[1]
		id, err = s.get(ctx, tree+"instance-id", header)
	}
	if err != nil {
		return f, err
	}
	f.docs["instance-id"] = id
	f.from = []string{s.url(tree)}
	leaf := func(name string) ([]byte, error) {
		b, err := s.get(ctx, tree+name, header)
		if errors.Is(err, errAbsent) {
			return nil, nil
		}
		return b, err
	}
	for _, name := range ec2Leaves {
		if f.docs[name], err = leaf(name); err != nil {
			return f, err
		}
	}
	macs, err := leaf("network/interfaces/macs/")
	if err != nil {
		return f, err
	}
	for mac := range strings.FieldsSeq(string(macs)) {
		f.docs["network/interfaces/macs/"+mac] = nil
	}
	return f, ec2Tags(f.docs, leaf)
}

// ec2Tags reads tags, which are lines of one leaf, or leaves of a directory.
func ec2Tags(docs shape.Documents, leaf func(string) ([]byte, error)) error {
	tags, err := leaf("tags")
	if err != nil {
		return err
	}
	if strings.TrimSpace(string(tags)) != "instance/" {
		docs["tags"] = tags
		return nil
	}
	keys, err := leaf("tags/instance/")
	if err != nil {
		return err
	}
	for i, key := range strings.Split(strings.TrimSpace(string(keys)), "\n") {
		if key = strings.TrimSpace(key); key == "" || i >= maxTags {
			continue
		}
		if docs["tags/instance/"+key], err = leaf("tags/instance/" + key); err != nil {
			return err
		}
	}
	return nil
}
