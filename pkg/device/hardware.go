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

// badUUIDs are well-formed UUIDs that many machines share, because a board maker
// or a firmware left them in. They are compared in both byte orders (swapped).
// UUIDs whose bytes are all the same, zeros and ones among them, and those that
// end in ones from the second group on are refused by a rule (placeholder). The
// list is never complete: SameHardware and spec.identity.source: mac are for the
// rest.
//
// Sources: FreeBSD, libexec/rc/rc.d/hostid (valid_hostid), marked F; GLPI,
// src/Blacklist.php (getDefaults), marked G; the rest are templates that owners of
// such boards found in dmidecode's output.
var badUUIDs = []string{
	"03000200-0400-0500-0006-000700080009", // F G: AMI's template, on boards of many makers
	"07090201-0103-0301-0807-060504030201", // F
	"11111111-2222-3333-4444-555555555555", // F
	"4c4c4544-0000-2010-8020-80c04f202020", // F: Dell without a service tag: seven spaces
	"6ab5b300-538d-1014-9fb5-b0684d007b53", // G
	"890e2d14-cacd-45d1-ae66-bc80e8bfeb0f", // F
	"8e275844-178f-44a8-aceb-a7d7e5178c63", // F
	"dc698397-fa54-4cf2-82c8-b1b5307a6a7f", // F
	"12345678-1234-5678-90ab-cddeefaabbcc", // an OEM template
	"00010203-0405-0607-0809-0a0b0c0d0e0f", // counted through
	"01020304-0506-0708-090a-0b0c0d0e0f10", // the same, from one
}

// HW returns the hardware identity that a new instance votes with: 32 hex digits
// of SHA-256 over the chosen fact. metadataID is used by SourceMetadata only. The
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

// KeptHW returns the identity of a server that has voted already: the one it
// voted with, as long as the source could still give it here, else that of HW. A
// card that comes up late or is added, firmware that gives the UUID in the other
// byte order, and an agent that learned to refuse a UUID therefore leave a server
// who it is.
func KeptHW(source string, h Hardware, metadataID, voted string) (string, error) {
	id, err := HW(source, h, metadataID)
	if source == SourceMetadata || voted == "" {
		return id, err
	}
	var could []string
	if uuid, formErr := parseUUID(h.UUID); formErr == nil && source != SourceMAC {
		could = append(could, hashID("uuid", uuid), hashID("uuid", swapped(uuid)))
	}
	for _, mac := range cleanMACs(h.MACs) {
		could = append(could, hashID("mac", mac))
	}
	if slices.Contains(could, voted) {
		return voted, nil
	}
	return id, err
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
	uuid, err := parseUUID(uuid)
	if err != nil {
		return "", err
	}
	if placeholder(uuid) || slices.Contains(badUUIDs, uuid) || slices.Contains(badUUIDs, swapped(uuid)) {
		return "", fmt.Errorf("the DMI product UUID is %s, which many machines share", uuid)
	}
	return uuid, nil
}

// parseUUID returns a well-formed UUID in lower case. Prose such as "To be filled
// by O.E.M.", "Not Settable" or "Not Specified" is none.
func parseUUID(text string) (string, error) {
	uuid := strings.ToLower(strings.TrimSpace(text))
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
		return "", fmt.Errorf("the DMI product UUID is %.40q, which is none", uuid)
	}
	return uuid, nil
}

// placeholder says that a well-formed UUID is one byte repeated (zeros: not
// present; ones: not set) or ends in ones from the second group on.
// Sources: SMBIOS (DMTF DSP0134), 7.2.1; FreeBSD, libexec/rc/rc.d/hostid.
func placeholder(uuid string) bool {
	digits := strings.ReplaceAll(uuid, "-", "")
	return strings.Repeat(digits[:2], 16) == digits || strings.HasSuffix(uuid, "-ffff-ffff-ffff-ffffffffffff")
}

// swapped is the UUID with its first three fields in the other byte order. From
// SMBIOS 2.6 on the kernel prints them as little endian, before as they lie, so
// firmware that raises its version changes the text.
// Source: Linux, drivers/firmware/dmi_scan.c (dmi_save_uuid).
func swapped(uuid string) string {
	b := []byte(uuid)
	for _, field := range [][2]int{{0, 8}, {9, 13}, {14, 18}} {
		for i, j := field[0], field[1]-2; i < j; i, j = i+2, j-2 {
			b[i], b[i+1], b[j], b[j+1] = b[j], b[j+1], b[i], b[i+1]
		}
	}
	return string(b)
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
