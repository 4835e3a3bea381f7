#!/bin/sh
# RabbitMQ from Debian for the benchmark: unpacked below a directory, not installed. Runs in the
# foreground on loopback ports until this process and the process in its pid file receive SIGTERM.
# usage: rabbitmq.sh DIRECTORY SCRATCH WEB_STOMP_PORT AMQP_PORT EPMD_PORT DIST_PORT
set -eu
dir=$1 scratch=$2 web=$3 amqp=$4 epmd=$5 dist=$6

if [ ! -e "$dir/unpacked" ]; then
	mkdir -p "$dir/debs" "$dir/root"
	(
		cd "$dir/debs"
		packages=$(apt-get install -s --no-install-recommends rabbitmq-server | awk '/^Inst (erlang|rabbitmq)/ { print $2 }')
		# shellcheck disable=SC2086 # one word each
		apt-get download -qq $packages
		for package in *.deb; do dpkg -x "$package" "$dir/root"; done
	)
	touch "$dir/unpacked"
fi

cat >"$scratch/rabbitmq.conf" <<END
listeners.tcp.default = 127.0.0.1:$amqp
web_stomp.tcp.ip = 127.0.0.1
web_stomp.tcp.port = $web
web_stomp.tcp.backlog = 4096
log.console.level = error
END
echo '[rabbitmq_web_stomp].' >"$scratch/enabled_plugins"

home=$(echo "$dir"/root/usr/lib/rabbitmq/lib/rabbitmq_server-*)
erlang=$dir/root/usr/lib/erlang
bin=$scratch/bin
mkdir -p "$bin"
# The scripts contain their installation path.
for name in erl start_erl; do
	[ -e "$erlang/bin/$name" ] && sed "s,/usr/lib/erlang,$erlang,g" "$erlang/bin/$name" >"$bin/$name" && chmod +x "$bin/$name"
done
beam=$(echo "$erlang"/erts-*)
export PATH="$bin:$beam/bin:$erlang/bin:$PATH" ERL_ROOTDIR="$erlang" HOME="$scratch"
export RABBITMQ_HOME="$home" RABBITMQ_NODENAME="bench$web@localhost" RABBITMQ_DIST_PORT="$dist"
export RABBITMQ_MNESIA_BASE="$scratch/mnesia" RABBITMQ_LOG_BASE="$scratch/log" RABBITMQ_LOGS=-
export RABBITMQ_CONFIG_FILE="$scratch/rabbitmq.conf" RABBITMQ_ENABLED_PLUGINS_FILE="$scratch/enabled_plugins"
export RABBITMQ_PID_FILE="$scratch/pid" ERL_EPMD_ADDRESS=127.0.0.1 ERL_EPMD_PORT="$epmd"
export RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS="-kernel inet_dist_use_interface {127,0,0,1}"
epmd -port "$epmd" -address 127.0.0.1 &
echo $! >"$scratch/epmd.pid"
exec sh "$home/sbin/rabbitmq-server"
