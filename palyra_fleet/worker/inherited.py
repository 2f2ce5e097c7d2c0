"""Which variables of the caller's environment reach a program: not those that run code. Pure.

A worker is admitted by the digest of its program; a variable that makes a loader, an interpreter or
a tool run something else besides would make that digest say nothing. So they are dropped, by name
or by beginning, in any spelling, unless an operator names them (`--keep-env`). Also dropped is what
would write a connection's keys to a file. Source: the manuals of ld.so(8), bash(1), git(1), and of
the interpreters named in the rows.
"""

from collections.abc import Collection
from typing import Final

RUNS_CODE: Final = frozenset(
    {
        # shells: files that are read at the start, and commands that run at each prompt or line
        "bash_env", "env", "shellopts", "bashopts", "ps4", "prompt_command", "zdotdir",
        # Node.js and npm
        "node_options", "node_path", "npm_config_node_options", "npm_config_script_shell",
        "npm_config_userconfig", "npm_config_globalconfig", "npm_config_prefix",
        # Perl, Ruby, Lua, PHP, R, Julia
        "perl5lib", "perl5opt", "perl5db", "perllib", "rubyopt", "rubylib", "gem_path", "gem_home",
        "lua_init", "lua_path", "lua_cpath", "phprc", "php_ini_scan_dir", "r_profile",
        "r_profile_user", "r_environ", "julia_load_path",
        # Java and .NET
        "java_tool_options", "_java_options", "jdk_java_options", "classpath",
        "dotnet_startup_hooks", "dotnet_additional_deps",
        # compilers and build tools that run a program in place of another
        "goflags", "gotoolchain", "rustc_wrapper", "rustc_workspace_wrapper", "rustflags",
        "makeflags",
        # libraries that load others: C library, OpenSSL, GTK, Kerberos
        "gconv_path", "locpath", "nlspath", "getconf_dir", "hostaliases", "resolv_host_conf",
        "openssl_conf", "openssl_engines", "openssl_modules", "gtk_modules", "krb5_config",
        # pagers, editors and helpers that tools start
        "lessopen", "lessclose", "pager", "editor", "visual", "browser", "ssh_askpass",
        # the keys of TLS connections, in clear
        "sslkeylogfile",
    }
)  # fmt: skip

BEGINNINGS: Final = (
    "ld_",  # ld.so: preload, audit, library path
    "dyld_",  # the loader of macOS
    "glibc_",
    "malloc_",
    "python",
    "bash_func_",  # functions that a shell exported
    "git_",  # commands that git runs, configuration by variable, where it looks for its parts
    "cor_", "coreclr_",  # profilers that .NET loads
    "cargo_build_", "cargo_target_",
)  # fmt: skip


def runs_code(name: str) -> bool:
    """Whether a variable of this name may make a program run something else."""
    lower = name.lower()
    return lower in RUNS_CODE or lower.startswith(BEGINNINGS)


def reaches_program(name: str, kept: Collection[str]) -> bool:
    """Whether a variable is passed on; `kept` are exact names that an operator allows."""
    return name in kept or not runs_code(name)
