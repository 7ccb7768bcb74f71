/* Stands in for NVIDIA's driver: the calls of NVML that Nightshift makes, answered from the file $STAND_IN_NVML, which is
 * read at each nvmlInit. A line for each GPU:
 *
 *     NAME UUID USED TOTAL UTILISATION CELSIUS MILLIWATTS
 *
 * A number that is -1 is not supported; a NAME "lost" has fallen off its bus; "mig NAME ..." is an instance of the GPU before.
 * An empty file is a driver that does not answer.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SUCCESS = 0, NOT_SUPPORTED = 3, NOT_FOUND = 6, GPU_IS_LOST = 15, UNKNOWN = 999 };
enum { MOST = 32, LETTERS = 96 };

struct gpu {
    char name[LETTERS], uuid[LETTERS];
    long long used, total, utilisation, celsius, milliwatts;
    int is_instance;
};
struct memory { unsigned long long total, free, used; };
struct utilisation { unsigned int gpu, memory; };

static struct gpu gpus[MOST];
static int count;

int nvmlInitWithFlags(unsigned int flags) {
    (void)flags;
    FILE *file = fopen(getenv("STAND_IN_NVML"), "r");
    if (file == NULL) return UNKNOWN;
    for (count = 0; count < MOST; count++) {
        struct gpu *gpu = &gpus[count];
        if (fscanf(file, "%95s", gpu->name) != 1) break;
        gpu->is_instance = strcmp(gpu->name, "mig") == 0;
        if (gpu->is_instance && fscanf(file, "%95s", gpu->name) != 1) break;
        if (fscanf(file, "%95s %lld %lld %lld %lld %lld", gpu->uuid, &gpu->used, &gpu->total, &gpu->utilisation,
                   &gpu->celsius, &gpu->milliwatts) != 6) break;
    }
    fclose(file);
    return count == 0 ? UNKNOWN : SUCCESS;
}

int nvmlShutdown(void) { return SUCCESS; }

const char *nvmlErrorString(int result) {
    if (result == GPU_IS_LOST) return "GPU is lost";
    return result == NOT_SUPPORTED ? "Not Supported" : "Unknown Error";
}

int nvmlSystemGetDriverVersion(char *version, unsigned int length) {
    snprintf(version, length, "580.1");
    return SUCCESS;
}

int nvmlDeviceGetCount_v2(unsigned int *number) {
    *number = 0;
    for (int i = 0; i < count; i++) *number += !gpus[i].is_instance;
    return SUCCESS;
}

int nvmlDeviceGetHandleByIndex_v2(unsigned int index, struct gpu **device) {
    for (int i = 0; i < count; i++) {
        if (gpus[i].is_instance || index-- > 0) continue;
        *device = &gpus[i];
        return strcmp(gpus[i].name, "lost") == 0 ? GPU_IS_LOST : SUCCESS;
    }
    return NOT_FOUND;
}

int nvmlDeviceGetMaxMigDeviceCount(struct gpu *device, unsigned int *number) {
    *number = device->is_instance ? 0 : 7;
    return SUCCESS;
}

int nvmlDeviceGetMigDeviceHandleByIndex(struct gpu *device, unsigned int index, struct gpu **instance) {
    *instance = device + 1 + index;
    for (struct gpu *gpu = device + 1; gpu <= *instance; gpu++)
        if (gpu >= gpus + count || !gpu->is_instance) return NOT_FOUND;
    return SUCCESS;
}

int nvmlDeviceGetName(struct gpu *device, char *name, unsigned int length) {
    snprintf(name, length, "%s", device->name);
    return SUCCESS;
}

int nvmlDeviceGetUUID(struct gpu *device, char *uuid, unsigned int length) {
    snprintf(uuid, length, "%s", device->uuid);
    return SUCCESS;
}

int nvmlDeviceGetMemoryInfo(struct gpu *device, struct memory *memory) {
    if (device->used < 0) return NOT_SUPPORTED;
    memory->total = device->total;
    memory->used = device->used;
    memory->free = device->total - device->used;
    return SUCCESS;
}

int nvmlDeviceGetUtilizationRates(struct gpu *device, struct utilisation *rates) {
    rates->gpu = rates->memory = device->utilisation;
    return device->utilisation < 0 ? NOT_SUPPORTED : SUCCESS;
}

int nvmlDeviceGetTemperature(struct gpu *device, int sensor, unsigned int *celsius) {
    (void)sensor;
    *celsius = device->celsius;
    return device->celsius < 0 ? NOT_SUPPORTED : SUCCESS;
}

int nvmlDeviceGetPowerUsage(struct gpu *device, unsigned int *milliwatts) {
    *milliwatts = device->milliwatts;
    return device->milliwatts < 0 ? NOT_SUPPORTED : SUCCESS;
}
