/* The one service of the tiny guest: a durable counter, a TCP answer, and the power button.
 *
 * Usage: tinyd DEVICE PORT
 *
 * A child writes one 512-byte record to the ring on DEVICE every 200 ms and flushes it; the counter that the
 * parent gives away over TCP is the last one the disk has acknowledged. The two are apart so that a stalled disk
 * stops neither the answers nor the power button.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/fs.h>
#include <linux/input.h>
#include <poll.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/reboot.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define RECORD 512
#define CHUNK (256 * 1024)
#define PERIOD_NS 200000000L
#define BUTTONS 8

static char boot_id[37];
static _Atomic uint64_t *durable;

static void say(const char *what)
{
	fprintf(stderr, "tinyd: %s: %s\n", what, strerror(errno));
}

static uint32_t checksum(const char *text, size_t length)
{
	uint32_t sum = 2166136261u; /* FNV-1a */
	while (length--)
		sum = (sum ^ (unsigned char)*text++) * 16777619u;
	return sum;
}

static uint64_t milliseconds(clockid_t clock)
{
	struct timespec now;
	clock_gettime(clock, &now);
	return (uint64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

static void encode(char *record, uint64_t seq)
{
	memset(record, 0, RECORD);
	int length = snprintf(record, RECORD, "rackhand-tiny/1 seq=%" PRIu64 " boot=%s uptime_ms=%" PRIu64 " unix_ms=%" PRIu64,
			      seq, boot_id, milliseconds(CLOCK_MONOTONIC), milliseconds(CLOCK_REALTIME));
	snprintf(record + length, RECORD - length, " sum=%08x\n", checksum(record, length));
}

/* The sequence number of a record, 0 where it is none. */
static uint64_t decode(const char *record)
{
	uint64_t seq;
	unsigned sum;
	const char *end = memmem(record, RECORD, " sum=", 5);
	if (!end || sscanf(record, "rackhand-tiny/1 seq=%" SCNu64, &seq) != 1 || sscanf(end, " sum=%8x", &sum) != 1)
		return 0;
	return sum == checksum(record, end - record) ? seq : 0;
}

static uint64_t recover(int disk, uint64_t slots, char *buffer)
{
	uint64_t last = 0;
	for (uint64_t at = 0; at < slots * RECORD;) {
		ssize_t got = pread(disk, buffer, CHUNK, at);
		if (got < RECORD) {
			say("cannot read the ring");
			exit(1);
		}
		for (ssize_t i = 0; i + RECORD <= got; i += RECORD) {
			uint64_t seq = decode(buffer + i);
			if (seq > last)
				last = seq;
		}
		at += got / RECORD * RECORD;
	}
	return last;
}

static void count(const char *device, int ready)
{
	char *buffer = aligned_alloc(4096, CHUNK);
	uint64_t size = 0;
	int disk = open(device, O_RDWR | O_DIRECT | O_CLOEXEC);
	if (disk < 0 || !buffer || ioctl(disk, BLKGETSIZE64, &size) || size < RECORD) {
		say(device);
		exit(1);
	}
	uint64_t slots = size / RECORD;
	uint64_t last = recover(disk, slots, buffer);
	struct timespec next;
	clock_gettime(CLOCK_MONOTONIC, &next);
	for (int first = 1, failing = 0;;) {
		encode(buffer, last + 1);
		off_t at = (last + 1) % slots * RECORD;
		if (pwrite(disk, buffer, RECORD, at) == RECORD && fsync(disk) == 0) {
			atomic_store(durable, ++last);
			failing = 0;
			if (first && write(ready, "r", 1) == 1)
				first = 0;
		} else if (!failing) {
			say("cannot write the counter");
			failing = 1;
		}
		/* After a stall go on from now: a burst of late records would prove nothing. */
		struct timespec now;
		clock_gettime(CLOCK_MONOTONIC, &now);
		next.tv_nsec += PERIOD_NS;
		if (next.tv_nsec >= 1000000000L) {
			next.tv_sec++;
			next.tv_nsec -= 1000000000L;
		}
		if (next.tv_sec < now.tv_sec || (next.tv_sec == now.tv_sec && next.tv_nsec < now.tv_nsec))
			next = now;
		clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &next, NULL);
	}
}

static int listen_on(int port)
{
	struct sockaddr_in any = { .sin_family = AF_INET, .sin_port = htons(port) };
	int on = 1, server = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (server < 0 || setsockopt(server, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) ||
	    bind(server, (struct sockaddr *)&any, sizeof any) || listen(server, 64)) {
		say("cannot listen");
		exit(1);
	}
	return server;
}

static void answer(int server)
{
	char line[80];
	int client = accept4(server, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
	if (client < 0)
		return;
	int length = snprintf(line, sizeof line, "%s %" PRIu64 "\n", boot_id, atomic_load(durable));
	if (send(client, line, length, MSG_NOSIGNAL) == length)
		shutdown(client, SHUT_WR);
	close(client);
}

static void button(int input)
{
	struct input_event event;
	while (read(input, &event, sizeof event) == sizeof event) {
		if (event.type == EV_KEY && event.code == KEY_POWER && event.value == 1) {
			fprintf(stderr, "tinyd: power button, powering off\n");
			sync();
			reboot(RB_POWER_OFF);
		}
	}
}

int main(int argc, char **argv)
{
	if (argc != 3)
		return 2;
	FILE *id = fopen("/proc/sys/kernel/random/boot_id", "r");
	if (!id || fscanf(id, "%36s", boot_id) != 1) {
		say("boot_id");
		return 1;
	}
	fclose(id);
	durable = mmap(NULL, sizeof *durable, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	int ready[2];
	if (durable == MAP_FAILED || pipe2(ready, O_CLOEXEC)) {
		say("cannot start");
		return 1;
	}
	pid_t child = fork();
	if (child == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		close(ready[0]);
		count(argv[1], ready[1]);
	}
	close(ready[1]);

	struct pollfd watch[BUTTONS + 2] = { { .fd = ready[0], .events = POLLIN }, { .fd = -1, .events = POLLIN } };
	for (int i = 0; i < BUTTONS; i++) {
		char path[32];
		snprintf(path, sizeof path, "/dev/input/event%d", i);
		watch[i + 2].fd = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
		watch[i + 2].events = POLLIN;
	}
	for (;;) {
		if (poll(watch, BUTTONS + 2, -1) < 0)
			continue;
		if (watch[0].revents & POLLIN) {
			char byte;
			if (read(ready[0], &byte, 1) == 1)
				watch[1].fd = listen_on(atoi(argv[2]));
		} else if (watch[0].revents & POLLHUP) {
			/* The writer is gone; init starts both again. */
			sleep(1);
			return 1;
		}
		if (watch[1].revents & POLLIN)
			answer(watch[1].fd);
		for (int i = 0; i < BUTTONS; i++)
			if (watch[i + 2].revents & POLLIN)
				button(watch[i + 2].fd);
	}
}
