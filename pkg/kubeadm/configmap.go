package kubeadm

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
)

// ConfigMap reads one of kube-system. Data and version are empty when there is none.
func (a *API) ConfigMap(ctx context.Context, name string) (data map[string]string, version string, err error) {
	var m configMap
	err = a.call(ctx, http.MethodGet, mirrorPath+"/"+name, nil, &m)
	if hasCode(err, http.StatusNotFound) {
		return nil, "", nil
	}
	if err != nil {
		return nil, "", fmt.Errorf("reading the ConfigMap kube-system/%s: %w", name, err)
	}
	data = map[string]string{}
	for key, text := range m.Data {
		if text != nil {
			data[key] = *text
		}
	}
	return data, m.Metadata.ResourceVersion, nil
}

// WriteConfigMap creates one, if it has no version, or replaces it, if it still has
// that version. next is its new version, empty when another was faster.
func (a *API) WriteConfigMap(ctx context.Context, name string, data map[string]string, version string) (next string, err error) {
	m := configMap{APIVersion: "v1", Kind: "ConfigMap", Metadata: objectMeta{Name: name, Namespace: "kube-system", ResourceVersion: version}, Data: map[string]*string{}}
	for key, text := range data {
		m.Data[key] = &text
	}
	body, err := json.Marshal(m)
	if err != nil {
		return "", fmt.Errorf("writing the ConfigMap kube-system/%s: %w", name, err)
	}
	method, path := http.MethodPut, mirrorPath+"/"+name
	if version == "" {
		method, path = http.MethodPost, mirrorPath
	}
	var written configMap
	err = a.call(ctx, method, path, body, &written)
	switch {
	case hasCode(err, http.StatusConflict), version != "" && hasCode(err, http.StatusNotFound):
		return "", nil
	case err != nil:
		return "", fmt.Errorf("writing the ConfigMap kube-system/%s: %w", name, err)
	}
	return written.Metadata.ResourceVersion, nil
}

// ConfigMap reads one of kube-system through the API server of this control plane.
func (k *Kubeadm) ConfigMap(ctx context.Context, name string) (data map[string]string, version string, err error) {
	api, err := k.admin()
	if err != nil {
		return nil, "", err
	}
	return api.ConfigMap(ctx, name)
}

// WriteConfigMap writes one through the API server of this control plane.
func (k *Kubeadm) WriteConfigMap(ctx context.Context, name string, data map[string]string, version string) (next string, err error) {
	api, err := k.admin()
	if err != nil {
		return "", err
	}
	return api.WriteConfigMap(ctx, name, data, version)
}
