package reaper

import (
	"fmt"
	"strconv"

	"github.com/moby/sys/user"
)

// LookupUser finds "user[:group]", names or numbers, in /etc/passwd and /etc/group without cgo. Numbers need neither file.
// home is "/" and name "" for a user that is not listed. Groups are the supplementary ones of the listed user, or none
// beside the given group.
func LookupUser(spec string) (c Credential, home, name string, err error) {
	passwd, _ := user.GetPasswdPath()
	groups, _ := user.GetGroupPath()
	u, err := user.GetExecUserPath(spec, &user.ExecUser{Home: "/"}, passwd, groups)
	if err != nil {
		return Credential{}, "", "", fmt.Errorf("cannot find the user %q: %w; numbers such as 65534:65534 need no /etc/passwd", spec, err)
	}
	c = Credential{UID: uint32(u.Uid), GID: uint32(u.Gid)}
	for _, g := range u.Sgids {
		c.Groups = append(c.Groups, uint32(g))
	}
	list, _ := user.ParsePasswdFileFilter(passwd, func(e user.User) bool { return e.Uid == u.Uid })
	if len(list) > 0 {
		name = list[0].Name
	}
	return c, u.Home, name, nil
}

func (c Credential) String() string {
	return strconv.FormatUint(uint64(c.UID), 10) + ":" + strconv.FormatUint(uint64(c.GID), 10)
}
