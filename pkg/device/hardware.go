package device

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
)

// Hardware is what the machine itself says it is.
type Hardware struct {
	UUID string   `json:"uuid,omitempty"` // DMI product UUID as the firmware gives it; may be missing or nonsense
	MACs []string `json:"macs,omitempty"` // permanent MAC addresses of its Ethernet links
}

// Sources of the hardware identity (spec.identity.source).
const (
	SourceAuto     = "auto"     // the DMI UUID, else the lowest permanent MAC
	SourceMAC      = "mac"      // the lowest permanent MAC, for fleets with duplicate UUIDs
	SourceMetadata = "metadata" // the platform's id of the server
)

// badUUIDs are well-formed UUIDs that many machines share, because a board
// maker or a firmware left them in. The list is never complete: SameHardware and
// spec.identity.source: mac are for the rest.
var badUUIDs = []string{
	"00000000-0000-0000-0000-000000000000",
	"ffffffff-ffff-ffff-ffff-ffffffffffff",
	"00020003-0004-0005-0006-000700080009", // AMI boards without a value
	"03000200-0400-0500-0006-000700080009", // the same in the other byte order
	"12345678-1234-5678-90ab-cddeefaabbcc",
	"fefefefe-fefe-fefe-fefe-fefefefefefe",
	"4c4c4544-0000-2010-8020-80c04f202020", // Dell without a service tag
}

// HW returns the hardware identity that a server votes with: 32 hex digits of
// SHA-256 over the chosen fact. metadataID is used by SourceMetadata only. The
// kind of the fact is part of the hash, so that ids of different sources never
// meet.
func HW(source string, h Hardware, metadataID string) (string, error) {
	switch source {
	case SourceAuto, "":
		uuid, uuidErr := usableUUID(h.UUID)
		if uuidErr == nil {
			return hashID("uuid", uuid), nil
		}
		mac, macErr := lowestMAC(h.MACs)
		if macErr != nil {
			return "", fmt.Errorf("no hardware identity: %w, and %w; set spec.identity.source: metadata", uuidErr, macErr)
		}
		return hashID("mac", mac), nil
	case SourceMAC:
		mac, err := lowestMAC(h.MACs)
		if err != nil {
			return "", fmt.Errorf("no hardware identity from spec.identity.source: mac: %w", err)
		}
		return hashID("mac", mac), nil
	case SourceMetadata:
		if metadataID == "" {
			return "", errors.New("no hardware identity from spec.identity.source: metadata: the metadata has no id")
		}
		return hashID("metadata", metadataID), nil
	}
	return "", fmt.Errorf("spec.identity.source is %q; expected auto, mac or metadata", source)
}

// SameHardware says whether a stored state belongs to this machine: the chosen
// id (of HW) must match and, where both sides know MAC addresses, at least one
// must be shared. The second half catches disks and virtual machines cloned
// between boards with the same UUID.
func SameHardware(storedID string, stored Hardware, id string, now Hardware) bool {
	if storedID == "" || storedID != id {
		return false
	}
	before, after := cleanMACs(stored.MACs), cleanMACs(now.MACs)
	if len(before) == 0 || len(after) == 0 {
		return true
	}
	return slices.ContainsFunc(before, func(mac string) bool { return slices.Contains(after, mac) })
}

// Describes returns an error when the platform names MAC addresses for this
// device and none of them is one of the machine: the document of a former owner
// of the address, which metadata services that tell servers by their source
// address may give out for a while.
func (d Device) Describes(h Hardware) error {
	theirs, ours := cleanMACs(d.MACs), cleanMACs(h.MACs)
	if len(theirs) == 0 || len(ours) == 0 {
		return nil
	}
	if slices.ContainsFunc(theirs, func(mac string) bool { return slices.Contains(ours, mac) }) {
		return nil
	}
	return fmt.Errorf("the metadata describes another server: %s (%s) has MAC %s, this machine has %s",
		d.Hostname, d.ID, strings.Join(theirs, ", "), strings.Join(ours, ", "))
}

func hashID(kind, value string) string {
	sum := sha256.Sum256([]byte("muster hw v1 " + kind + " " + value))
	return hex.EncodeToString(sum[:16])
}

// usableUUID returns the UUID in lower case, or why it identifies nothing.
func usableUUID(uuid string) (string, error) {
	uuid = strings.ToLower(strings.TrimSpace(uuid))
	if uuid == "" {
		return "", errors.New("there is no DMI product UUID")
	}
	wellFormed := len(uuid) == 36
	for i, r := range uuid {
		if i == 8 || i == 13 || i == 18 || i == 23 {
			wellFormed = wellFormed && r == '-'
		} else {
			wellFormed = wellFormed && strings.ContainsRune("0123456789abcdef", r)
		}
	}
	if !wellFormed {
		return "", fmt.Errorf("the DMI product UUID is %q, which is none", uuid)
	}
	if slices.Contains(badUUIDs, uuid) {
		return "", fmt.Errorf("the DMI product UUID is %s, which many machines share", uuid)
	}
	return uuid, nil
}

func lowestMAC(macs []string) (string, error) {
	usable := cleanMACs(macs)
	if len(usable) == 0 {
		return "", errors.New("there is no Ethernet link with a permanent MAC address")
	}
	return usable[0], nil
}

// cleanMACs returns the usable addresses in lower case with colons, sorted,
// each once. Zero and multicast addresses identify nothing.
func cleanMACs(macs []string) []string {
	var usable []string
	for _, s := range macs {
		mac, err := net.ParseMAC(strings.TrimSpace(s))
		if err != nil || len(mac) != 6 || mac[0]&1 == 1 || mac.String() == "00:00:00:00:00:00" {
			continue
		}
		usable = append(usable, mac.String())
	}
	slices.Sort(usable)
	return slices.Compact(usable)
}
